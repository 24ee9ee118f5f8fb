"""Which members can form one ensemble."""

from collections.abc import Sequence

from beam_zoo.errors import UserError
from beam_zoo.members.member import Member

_OUTPUTS = {"tree": "questions and answers", "classifier": "class_names", "regressor": "value_name"}


def check_compatible(members: Sequence[tuple[str, Member]]) -> None:
    """Refuse members that do not predict the same outputs.

    Args:
        members: each with the words by which an error line names it, such as `a` or `a of /outputs/b`.

    Raises:
        UserError: two members differ in kind, in their outputs, or in their schemas' dependencies.
    """
    (first_words, first), *others = members
    for words, other in others:
        both = f"members {first_words} and {words}"
        if first.kind != other.kind:
            raise UserError(f"{both} do not go together: a {first.kind} and a {other.kind}")
        if first.outputs != other.outputs:
            raise UserError(f"{both} have different {_OUTPUTS[first.kind]}")
        if first.schema != other.schema:
            raise UserError(f"{both} have schemas with different dependencies")
