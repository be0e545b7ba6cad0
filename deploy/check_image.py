"""Says whether an image holds what the plugins ask for; run while the image is built, where a failure ends the build.

usage: python check_image.py <folder of requirement files and worker.lock> [--cuda]
"""

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

IMPORTED_AS = {
    "huggingface-hub": "huggingface_hub",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "umap-learn": "umap",
}


def problems(folder: Path, cuda: bool) -> Iterator[str]:
    """What is missing, too old, doubled, broken, or built for no GPU."""
    lines = {line for file in folder.glob("*.txt") for line in file.read_text().splitlines()}
    asked = sorted((Requirement(line) for line in lines if line and not line.startswith("#")), key=str)
    if not asked:
        yield f"{folder} holds no requirements"
    for requirement in asked:
        version = _installed(requirement)
        if version is None:
            yield f"{requirement.name} is missing (the plugins ask for {requirement})"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} is {version} (the plugins ask for {requirement})"
        try:
            importlib.import_module(IMPORTED_AS.get(requirement.name, requirement.name))
        except Exception as error:
            yield f"{requirement.name} cannot be imported: {type(error).__name__}: {error}"
    locked = re.findall(r"^([\w.-]+)==", (folder / "worker.lock").read_text(), re.MULTILINE)
    yield from _at_odds(("fiftyone", *locked))
    owners = sorted(set(importlib.metadata.packages_distributions().get("cv2", ())))
    if len(owners) > 1:
        yield f"{' and '.join(owners)} bring one and the same cv2: remove all but opencv-python-headless"
    if cuda:
        import torch

        if torch.version.cuda is None:
            yield f"torch {torch.__version__} is built without CUDA: take a base image whose torch is built with it"


def _at_odds(packages: Iterable[str]) -> Iterator[str]:
    """What is there in a version that one of the packages does not take.

    What is missing was so before, as FiftyOne's, or is left out of the lock, as a second cv2.
    """
    for package in packages:
        try:
            asked = importlib.metadata.requires(package) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system, or another Python
        for requirement in map(Requirement, asked):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            version = _installed(requirement)
            if version is not None and not requirement.specifier.contains(version, prereleases=True):
                yield f"{requirement.name} is {version} ({package} asks for {requirement})"


def _installed(requirement: Requirement) -> str | None:
    try:
        return importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1]), "--cuda" in sys.argv))
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        sys.exit(f"{len(found)} problems: this image cannot serve the plugins")
    print("this image holds what the plugins ask for")
