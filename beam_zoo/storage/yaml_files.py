"""YAML files of plain values: no tag is executed, and a duplicate key is an error."""

import os
import select
import stat
from typing import Any

import yaml

from beam_zoo.errors import UserError, one_line
from beam_zoo.storage import files

PIPE_SECONDS = 5


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which would take the last of duplicate keys; this one refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(path: str) -> dict[str, Any]:
    """A YAML file that holds a mapping of plain values.

    Raises:
        UserError: it cannot be read, or is not a mapping in plain YAML without duplicate keys.
    """
    try:
        content = yaml.load(files.read_bytes(path) if files.is_object(path) else _text(path), _Loader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not plain YAML: {one_line(error, 200)}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path} must hold a mapping of names to values")
    return content


def _text(path: str) -> str:
    # Opening a pipe without a writer would wait for ever; a shell's <(...) is a pipe with one.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            if not select.select([file], [], [], PIPE_SECONDS)[0]:
                raise UserError(f"{path} is a pipe that nobody writes to")
            os.set_blocking(file.fileno(), True)
        return file.read().decode()
