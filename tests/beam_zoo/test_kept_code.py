"""Compiled code is kept where nobody else can put any, and is found there again."""

import os
import resource
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_zoo.errors import UserError
from beam_zoo.images.decoding_processes import begin_to_import
from beam_zoo.runtime import code_cache
from beam_zoo.storage.private_folder import ANYTHING, WRITE, fault, fault_on_the_way
from pipelines import predict
from tests import checkpoints

SOMEBODY = 1001


@pytest.fixture
def give(monkeypatch):
    """Makes a file somebody else's: by its owner, or where only root may do that by who asks."""

    def to_somebody(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)

    return to_somebody


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that all can enter: pytest's own are below one that is closed to others."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path


def bad_folder(kind: str, folder: Path, give) -> tuple[Path, str]:
    """A folder in which others could put code, and what is to be said of it."""
    path = folder / "cache"
    path.mkdir(mode=0o700)
    if kind == "somebody else's":
        give(path)
        return path, "is somebody else's"
    if kind == "mode 777":
        path.chmod(0o777)
        return path, "others (chmod go-w)"
    if kind == "writable by the group":
        path.chmod(0o770)
        return path, "others (chmod go-w)"
    if kind == "below such a folder":
        path.chmod(0o777)
        (path / "mine").mkdir(mode=0o700)
        return path / "mine", f"{path} can be written to by others (chmod go-w)"
    target = folder / "target"
    target.mkdir(mode=0o700)
    path.rmdir()
    path.symlink_to(target)
    if kind == "a link to somebody else's":
        give(target)
        return path, "is somebody else's"
    assert kind == "somebody else's link"
    give(path)
    return path, "is somebody else's"


KINDS = [
    "somebody else's",
    "mode 777",
    "writable by the group",
    "below such a folder",
    "a link to somebody else's",
    "somebody else's link",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"])
def test_torch_code_is_not_kept_among_others(variable, kind, few, trees, tmp_path, give, monkeypatch, capfd):
    """By the command: one line, before anything is compiled."""
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "good"))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    path, said = bad_folder(kind, tmp_path, give)
    monkeypatch.setenv(variable, str(path))
    words = [
        "--catalogue",
        few,
        "--models",
        trees[0],
        "--passes",
        1,
        "--compile",
        "--output",
        tmp_path / "out",
    ]
    assert predict.main([str(word) for word in words]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("error: compiled code cannot be kept in ") and said in line
    assert line.endswith(f"set {variable} to a folder that is yours alone")
    assert not list((tmp_path / "cache").rglob("*.so"))


@pytest.mark.parametrize("kind", ["somebody else's", "mode 777", "a link to somebody else's"])
@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_numba_code_is_not_kept_among_others(variable, kind, few, trees, tmp_path, give):
    """By the command in a process of its own, which imports what is compiled."""
    path, said = bad_folder(kind, tmp_path, give)
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    words = ["--catalogue", few, "--models", trees[0], "--passes", 1, "--output", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.predict", *map(str, words)],
        env=environment | {variable: str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert line.startswith("error: compiled code cannot be kept in ") and said in line
    assert line.endswith("set NUMBA_CACHE_DIR to a folder that is yours alone")


def test_nor_that_of_processes_that_decode(tmp_path, monkeypatch):
    """These import what is compiled before this process does, and could not say it in a line."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "open"))
    with pytest.raises(UserError, match="compiled code cannot be kept in"):
        begin_to_import()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/dev/null")
    begin_to_import()  # nothing is kept


def test_what_is_fine(tmp_path):
    """A new folder, its parents, one that others may read, a link, and below a folder with the sticky bit."""
    new = tmp_path / "a" / "b"
    assert fault_on_the_way(str(new)) is None
    assert {stat.S_IMODE(path.stat().st_mode) for path in (new, new.parent)} == {0o700}
    new.chmod(0o755)
    assert fault_on_the_way(str(new), WRITE) is None
    assert fault_on_the_way(str(new), ANYTHING) == f"{new} is open to others (chmod 700)"
    (tmp_path / "link").symlink_to("a")
    assert fault_on_the_way(str(tmp_path / "link" / "b"), WRITE) is None
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    assert fault_on_the_way(str(tmp_path / "sticky" / "mine")) is None


def test_below_a_closed_folder(tmp_path):
    """In a home of mode 700 permissions of `.cache` do not matter; those of the folder itself do."""
    home, cache = tmp_path / "home", tmp_path / "home" / ".cache"
    home.mkdir(mode=0o700)
    cache.mkdir()
    cache.chmod(0o775)
    assert fault_on_the_way(str(cache / "mine")) is None
    home.chmod(0o711)
    assert fault_on_the_way(str(cache / "mine")) == f"{cache} can be written to by others (chmod go-w)"
    home.chmod(0o700)
    (cache / "mine").chmod(0o770)
    assert "is open to others" in fault_on_the_way(str(cache / "mine"))


@pytest.mark.parametrize("relative", [False, True])
def test_a_link_out_of_a_closed_folder(relative, tmp_path, give):
    """Caches that are linked to a scratch file system, as on many clusters: what is there is looked at."""
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir(mode=0o700)
    (scratch / "open").mkdir(parents=True)
    scratch.chmod(0o755)
    target = "../scratch" if relative else scratch
    (home / "link").symlink_to(target)
    (home / ".cache").symlink_to(f"{target}/open")
    (scratch / "open").chmod(0o777)
    for path in (home / "link" / "open" / "mine", home / ".cache" / "mine"):
        assert (fault_on_the_way(str(path)) or "").endswith("/open can be written to by others (chmod go-w)")
    (scratch / "open").chmod(0o755)
    assert fault_on_the_way(str(home / ".cache" / "mine")) is None
    (scratch / "theirs").mkdir()
    give(scratch / "theirs")
    (home / "theirs").symlink_to(f"{target}/theirs")
    assert "is somebody else's" in (fault_on_the_way(str(home / "theirs" / "mine")) or "")


def test_links_are_followed_to_their_end(tmp_path, give):
    """A link of mine to a link of mine, on whose way is a folder to which others can write."""
    (tmp_path / "open" / "real").mkdir(parents=True)
    (tmp_path / "one").symlink_to(tmp_path / "open" / "real")
    (tmp_path / "two").symlink_to("one")
    assert fault_on_the_way(str(tmp_path / "two" / "code")) is None
    (tmp_path / "open").chmod(0o777)
    wrong = f"{tmp_path / 'open'} can be written to by others (chmod go-w)"
    assert fault_on_the_way(str(tmp_path / "two" / "code")) == wrong
    assert fault_on_the_way(str(tmp_path / "two")) == wrong
    (tmp_path / "circle").symlink_to("circle")
    for name in ("circle", "circle/code"):
        with pytest.raises(OSError):
            fault_on_the_way(str(tmp_path / name))


def test_one_folder_itself(tmp_path, give):
    assert fault(str(tmp_path / "new")) is None
    (tmp_path / "link").symlink_to("new")
    assert fault(str(tmp_path / "link")) == f"{tmp_path / 'link'} is not a folder"
    give(tmp_path / "new")
    assert fault(str(tmp_path / "new")) == f"{tmp_path / 'new'} is somebody else's"


@pytest.mark.parametrize("umask, refused", [(0o022, False), (0o002, True)])
def test_what_torch_makes_is_as_open_as_the_umask(umask, refused, tmp_path):
    """A folder that others may enter is fine only if they cannot write to what will be below it."""
    program = f"""
        import os
        from beam_zoo.runtime.code_cache import keep_torch_code
        os.mkdir({str(tmp_path / "own")!r}, 0o755)
        os.umask({umask})
        keep_torch_code()
    """
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "own")}
    words = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == refused, done.stderr
    assert ("is open to others (chmod 700)" in done.stderr) == refused


def test_numba_finds_its_code_again(tmp_path):
    """What one process compiled the next one loads."""
    program = """
        import numba
        from beam_zoo.images.kernels.resample import _turn
        print(sum(_turn.stats.cache_hits.values()), sum(_turn.stats.cache_misses.values()))
    """
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    words = [sys.executable, "-c", textwrap.dedent(program)]
    said = [subprocess.check_output(words, env=environment, text=True).split() for _ in range(2)]
    assert said == [["0", "1"], ["1", "0"]]
    (kept,) = (tmp_path / "beam_zoo").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700 and list(kept.rglob("*.nbc"))


@pytest.mark.parametrize("wrong", ["no folder", "no space"])
def test_torch_code_cannot_be_kept(wrong, tmp_path):
    """It is there for one process, in a folder of mode 700."""
    program = """
        import os, stat, sys
        from beam_zoo.runtime.code_cache import keep_torch_code
        keep_torch_code()
        keep_torch_code()
        (name,) = (name for name in os.listdir(sys.argv[1]) if name.startswith("beam-zoo"))
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == os.path.join(sys.argv[1], name)
        assert stat.S_IMODE(os.stat(os.environ["TORCHINDUCTOR_CACHE_DIR"]).st_mode) == 0o700
    """
    environment = {
        n: v for n, v in os.environ.items() if n not in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    }
    cache = "/dev/null" if wrong == "no folder" else str(tmp_path / "cache")
    environment |= {"XDG_CACHE_HOME": cache, "TMPDIR": str(tmp_path)}

    def no_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    words = [sys.executable, "-B", "-c", textwrap.dedent(program), str(tmp_path)]
    subprocess.run(words, env=environment, check=True, preexec_fn=no_space if wrong == "no space" else None)
    assert not list(tmp_path.glob("beam-zoo*"))


@pytest.mark.slow
def test_torch_finds_its_code_again(few, tmp_path):
    """No file of it is in the temporary folder, and the next process compiles nothing anew."""
    path = checkpoints.tree(tmp_path / "m.ckpt")
    member = checkpoints.member(tmp_path / "m.yaml", path)
    temporary, cache = tmp_path / "temporary", tmp_path / "cache"
    temporary.mkdir()
    environment = {
        n: v for n, v in os.environ.items() if not n.startswith(("TORCHINDUCTOR", "TRITON", "NUMBA"))
    }
    environment |= {"TMPDIR": str(temporary), "XDG_CACHE_HOME": str(cache)}
    kept = []
    for number in range(2):
        words = ["--catalogue", few, "--models", member, "--passes", 1, "--compile"]
        words = [sys.executable, "-m", "pipelines.predict", *words, "--output", tmp_path / f"{number}"]
        subprocess.run([str(word) for word in words], env=environment, check=True, capture_output=True)
        assert not [path for path in temporary.rglob("*") if not path.is_dir()]
        kept.append(
            {str(p): p.stat().st_mtime_ns for p in cache.rglob("*") if p.suffix in (".so", ".gch", ".cpp")}
        )
    assert kept[0] == kept[1] and {Path(name).suffix for name in kept[0]} >= {".so", ".gch"}
    folders = {path.name.partition("-")[0]: path for path in (cache / "beam_zoo").iterdir()}
    assert set(folders) == {"numba", "torch"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders.values()} == {0o700}
    assert all(name.startswith(str(folders["torch"])) for name in kept[0])


def test_what_torch_chose_itself_is_not_the_users_choice(tmp_path, monkeypatch):
    """It sets the variable to a folder in /tmp whose name anybody can know."""
    from torch._inductor.runtime import cache_dir_utils

    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir_utils.cache_dir() == cache_dir_utils.default_cache_dir()
    code_cache.keep_torch_code()
    assert cache_dir_utils.cache_dir().startswith(str(tmp_path / "beam_zoo" / "torch-"))
    assert cache_dir_utils.triton_cache_dir(0).startswith(str(tmp_path / "beam_zoo" / "torch-"))
    with pytest.raises(UserError, match="set XDG_CACHE_HOME to a folder"):
        (tmp_path / "beam_zoo").chmod(0o777)
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        code_cache.keep_torch_code()
