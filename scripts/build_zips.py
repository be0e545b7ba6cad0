"""Builds `dist/<plugin>.zip` for every plugin: its own files and a real copy of `shared/`, nothing else.

The same sources give the same bytes on any machine.
"""

import argparse
import datetime
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".py", ".md", ".txt", ".yml", ".svg", ".png"}
LIMIT = 1_000_000


def plugin_names() -> list[str]:
    """The plugins of this checkout, sorted."""
    return sorted(manifest.parent.name for manifest in (ROOT / "plugins").glob("*/fiftyone.yml"))


def build(dist: Path, names: list[str] | None = None) -> list[Path]:
    """Writes the zips of `names` (all, by default) into `dist`, each whole or not at all.

    Raises:
        ValueError: when a zip comes out too big to be only code.
    """
    dist.mkdir(parents=True, exist_ok=True)
    return [_build_one(name, dist) for name in names or plugin_names()]


def unpack(archive: Path, plugins: Path) -> None:
    """Unpacks a zip into the folder `plugins`, with its time stamps, as `unzip` does and `zipfile` does not."""
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            path = Path(zipped.extract(info, plugins))
            when = datetime.datetime(*info.date_time).timestamp()
            os.utime(path, (when, when))


def _build_one(name: str, dist: Path) -> Path:
    part = dist / f".{name}.{os.getpid()}.part"  # two of us may build at one time
    with zipfile.ZipFile(part, "w") as archive:
        # The licence asks to go with every copy.
        for inside, path in [*_files(name), (f"{name}/LICENSE", ROOT / "LICENSE")]:
            data = path.read_bytes()
            info = zipfile.ZipInfo(inside, _stamp(data))
            info.create_system = 3  # Unix, wherever it is built: the mode below counts
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED, 9)
    if part.stat().st_size > LIMIT:
        raise ValueError(f"{name}.zip has {part.stat().st_size:,} bytes; {LIMIT:,} is the most a plugin's code needs")
    return part.replace(dist / f"{name}.zip")


def _files(name: str) -> Iterator[tuple[str, Path]]:
    """The name in the zip and the file, for all that belongs to the plugin, `shared` followed and sorted."""
    plugin = ROOT / "plugins" / name
    for folder, folders, files in os.walk(plugin, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__")) and f != "tests")
        for file in sorted(files):
            path = Path(folder, file)
            if path.suffix in SUFFIXES and not file.startswith("."):
                yield f"{name}/{path.relative_to(plugin).as_posix()}", path


def _stamp(data: bytes) -> tuple[int, int, int, int, int, int]:
    """A time that depends on the content alone.

    Not one time for all: Python takes a cached `.pyc` for current when time and size of the source are unchanged,
    so that unpacking over an older release would go on running `__version__ = "0.1.0"` where it says `"0.1.1"`.
    """
    # Zip files count in steps of two seconds.
    when = datetime.datetime(2000, 1, 1) + datetime.timedelta(seconds=2 * (zlib.crc32(data) % (10 * 365 * 43_200)))
    return (when.year, when.month, when.day, when.hour, when.minute, when.second)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    for zipped in build(parser.parse_args().dist):
        print(f"{os.path.relpath(zipped)}  {zipped.stat().st_size / 1000:,.0f} kB")
