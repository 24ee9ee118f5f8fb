"""Secrets in Beam's options: masked as *** in output and files, refused by engines that would store them."""

import json
import re
from typing import Any

from beam_zoo.errors import UserError

MASK = "***"
NO_SECRETS = ("allow_non_deterministic_key_coders", "dataflow_kms_key", "enable_hot_key_logging")
"""Options of Beam that are named like secrets and are none."""
NAMES_OF_OTHERS = (
    "direct_test_splits",
    "labels",
    "sdk_harness_log_level_overrides",
    "transform_name_mapping",
)
"""Options of Beam that hold names of steps, loggers and labels, which may be any."""
INSTEAD = (
    "set it where the steps run: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or "
    "AWS_PROFILE with ~/.aws/credentials; GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth "
    "application-default login; AZURE_STORAGE_CONNECTION_STRING"
)

_SECRET = "secret|passw(?:or)?d|passphrase|token|credential|key|signature"
_WORD = re.compile(rf"(?:\w*(?:{_SECRET}|connectionstring)|pass|pwd|pw|creds?|sig)s?", re.IGNORECASE)
_FILE = ("file", "path", "dir", "folder", "google_application_credentials")
_PAIR = re.compile(  # NAME=value, and "NAME": "value" of what is no whole JSON
    rf"""(?P<before>(?P<name>[\w.-]*(?:{_SECRET}|connection_?string|pass|pwd|pw|creds?|sig)[\w.-]*)"""
    r"""(?:=|["']\s*:\s*))"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&"'}]+)""",
    re.IGNORECASE,
)
_SAID = re.compile(  # the option of a command, an HTTP header, NAME:value, and `password: value`
    rf"""(?P<before>--[\w-]*(?i:{_SECRET})[\w-]*\s+|\b(?i:bearer|basic)\s+"""
    r"""|(?<![\w./-])[A-Z0-9_]*(?:SECRET|PASSWORD|TOKEN|CREDENTIAL|KEY)[A-Z0-9_]*:(?!//)"""
    r"""|\b(?i:password|token|secret):\s+)"""
    r"""(?P<value>[^\s,;&"'}]+)"""
)
_PASSWORD = re.compile(r"(?P<before>://[^\s/?#:@]*:|https?://)[^\s/?#@:]+(?=@)")


def shown(flag: str) -> str:
    """A flag as it may be printed and stored.

    Args:
        flag: such as `--s3_session_token=value`.
    """
    word, equals, value = flag.partition("=")
    name = word.lstrip("-").replace("-", "_")
    if not value or name in NAMES_OF_OTHERS:
        return flag
    return f"{word}{equals}{MASK if _is_secret(name) else _in_value(value)}"


def in_text(text: str) -> str:
    """A text without the values of what is named like a secret, and without the passwords of URLs."""

    def hide(found: re.Match[str]) -> str:
        return found["before"] + MASK if _is_secret(found["name"]) else found[0]

    text = _SAID.sub(rf"\g<before>{MASK}", _PAIR.sub(hide, text))
    return _PASSWORD.sub(rf"\g<before>{MASK}", text)


def refuse(flags: list[str], whose: str) -> None:
    """Refuse flags that hold a secret.

    Args:
        flags: Beam's options.
        whose: what would store them.

    Raises:
        UserError: naming the first such option, without its value, and what to use instead.
    """
    for flag in flags:
        if shown(flag) != flag:
            name = flag.partition("=")[0]
            raise UserError(f"{name} holds a secret, which {whose} would store for others to read: {INSTEAD}")


def _is_secret(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    if plain in NO_SECRETS or plain.endswith(_FILE):
        return False
    words = re.split(r"[_.]+", plain.replace("connection_string", "connectionstring"))
    return any(_WORD.fullmatch(word) for word in words)


def _in_value(value: str) -> str:
    """Mask a value: JSON by the names in it, other text by what looks like a name with its value."""
    try:
        content = json.loads(value, object_pairs_hook=_without_doubles)
    except ValueError:
        return in_text(value)
    hidden = _in_json(content)
    return value if hidden == content else json.dumps(hidden)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse JSON with a duplicate name: a reader would see the last entry only."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _in_json(content: Any) -> Any:
    if isinstance(content, dict):
        named = isinstance(content.get("name"), str) and _is_secret(content["name"])
        return {
            name: MASK
            if (_is_secret(name) or (named and name == "value")) and not _says_nothing(each)
            else _in_json(each)
            for name, each in content.items()
        }
    if isinstance(content, list):
        return [_in_json(each) for each in content]
    return in_text(content) if isinstance(content, str) else content


def _says_nothing(value: Any) -> bool:
    return value is None or value == "" or isinstance(value, bool)
