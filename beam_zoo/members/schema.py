"""A decision tree (schema) by its name in zoobot, or from a YAML file, checked before it is used."""

from typing import TYPE_CHECKING, Any

from beam_zoo.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from zoobot.shared.schemas import Schema

Pairs = dict[str, list[str]]
Dependencies = dict[str, str | None]


def named_schema(name: str) -> "Schema":
    """A schema of `zoobot.shared.schemas`, for example `gz_evo_v1_schema`.

    Raises:
        UserError: there is none of that name.
    """
    from zoobot.shared import schemas

    known = {key: value for key, value in vars(schemas).items() if isinstance(value, schemas.Schema)}
    if name not in known:
        raise UserError(f"schema: zoobot.shared.schemas has no {name!r}{did_you_mean(name, known)}")
    return known[name]


def make_schema(pairs: Any, dependencies: Any) -> "Schema":
    """zoobot's Schema of these questions, after checks that zoobot itself does not make.

    Args:
        pairs: question -> its answers' endings, for example `{"ring": ["_yes", "_no"]}`.
        dependencies: question -> the answer it is asked after (`smooth-or-featured_smooth`), or None.

    Raises:
        UserError: the tree is not one: wrong types, repeated labels, an unknown answer, a circle.
    """
    from zoobot.shared.schemas import Schema

    if not isinstance(pairs, dict) or not pairs:
        raise UserError("schema: question_answer_pairs must map every question to a list of answers")
    if not isinstance(dependencies, dict):
        raise UserError("schema: dependencies must map every question to an answer, or to null")
    for question, answers in pairs.items():
        texts = isinstance(question, str) and isinstance(answers, list | tuple)
        if not texts or not answers or not all(isinstance(a, str) for a in answers):
            raise UserError(f"schema: question {question!r} must have a list of answer names")
    plain: Pairs = {question: list(answers) for question, answers in pairs.items()}
    labels = [question + answer for question, answers in plain.items() for answer in answers]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"schema: two answers have the same label {label!r}")
    for question, answer in dependencies.items():
        if question not in plain:
            raise UserError(
                f"schema: dependencies name no question {question!r}{did_you_mean(question, plain)}"
            )
        if answer is not None and answer not in labels:
            raise UserError(
                f"schema: {question!r} is asked after no known answer {answer!r}"
                f"{did_you_mean(answer, labels)}"
            )
    for question in plain:
        if question not in dependencies:
            raise UserError(
                f"schema: dependencies lack the question {question!r} (null if it is always asked)"
            )
    _refuse_circles(plain, dependencies)
    return Schema(plain, dict(dependencies))


def _refuse_circles(pairs: Pairs, dependencies: Dependencies) -> None:
    owner = {question + answer: question for question, answers in pairs.items() for answer in answers}
    for first in pairs:
        seen, question = {first}, first
        while (answer := dependencies[question]) is not None:
            question = owner[answer]
            if question in seen:
                raise UserError(f"schema: {first!r} is asked after itself, through {answer!r}")
            seen.add(question)


def difference(own: Any, given: Pairs) -> str | None:
    """The first way in which a checkpoint's own questions and answers differ from its schema's.

    Args:
        own: the question_answer_pairs that the checkpoint carries.
        given: those of the schema.

    Returns:
        A phrase, or None where they are the same, in the same order.
    """
    own_labels = [q + a for q, answers in own.items() for a in answers]
    labels = [q + a for q, answers in given.items() for a in answers]
    if own_labels == labels and list(own) == list(given):
        return None
    for index, (mine, theirs) in enumerate(zip(own_labels, labels, strict=False)):
        if mine != theirs:
            return f"its answer {index} is {mine!r}, where the schema has {theirs!r}"
    return f"it has {len(own_labels)} answers, where the schema has {len(labels)}"
