"""A Python prompt on the demo's database, plugins and secrets, with `dataset` and `foo` at hand; or runs a script."""

import argparse
import code
import os
import runpy
import sys

import surroundings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", nargs="?", help="a Python file to run instead of the prompt")
    options = parser.parse_args()
    surroundings.prepare()
    surroundings.install_plugins()
    surroundings.own_database()
    os.environ.setdefault("MBARI_LABEL_STORE", surroundings.own_label_store())

    import fiftyone as fo
    import fiftyone.operators as foo

    names = {"fo": fo, "foo": foo}
    if fo.dataset_exists(surroundings.DATASET):
        names["dataset"] = fo.load_dataset(surroundings.DATASET)
        names["view"] = names["dataset"].limit(300)  # as in the examples of the plugins' READMEs
    else:
        print("There is no demo dataset yet: run `make demo` first.", file=sys.stderr)
    if options.script:
        runpy.run_path(options.script, init_globals=names)
    else:
        code.interact(banner=f"FiftyOne {fo.__version__}; here are: {', '.join(names)}", local=names, exitmsg="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
