"""FiftyOne's App on the demo dataset, with the plugins from the zips and a delegated worker; Ctrl-C ends both."""

import argparse
import logging
import os
import signal
from contextlib import nullcontext

import surroundings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5151)
    parser.add_argument("--address", default="localhost")
    parser.add_argument("--no-worker", action="store_true", help="leave scheduled runs to another process")
    options = parser.parse_args()
    # However it is ended, the worker and the App's server end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script starts with "&"
    surroundings.prepare()
    surroundings.install_plugins()
    surroundings.own_database()
    os.environ.setdefault("MBARI_LABEL_STORE", surroundings.own_label_store())

    import fiftyone as fo
    import fiftyone.constants as constants
    from fiftyone.core.service import ServiceListenTimeout

    # FiftyOne notes there that it greeted this user; the note need not be in the user's home.
    constants.WELCOME_PATH = str(surroundings.BUILD / "fiftyone" / "welcome.json")
    if not fo.dataset_exists(surroundings.DATASET):
        print(f"There is no dataset {surroundings.DATASET!r} yet: run `make demo` first.")
        return 1
    dataset = fo.load_dataset(surroundings.DATASET)
    # Its words on remote sessions would bury the two lines below that a person needs.
    logging.getLogger("fiftyone").setLevel(logging.WARNING)
    log = surroundings.BUILD / "app" / "worker.log"
    print("Starting the App; a busy machine takes a minute.", flush=True)
    try:
        session = fo.launch_app(dataset, remote=True, port=options.port, address=options.address)
    except ServiceListenTimeout:
        print(f"The App's server did not start within a minute: is port {options.port} taken, or the machine busy?")
        return 1
    with nullcontext() if options.no_worker else surroundings.delegated_worker(log):
        print(f"The App: http://{options.address}:{options.port}   (operators: press ` or the grid's operator button)")
        if not options.no_worker:
            print(f"Scheduled runs are executed by a delegated worker; its log: {log}")
        try:
            session.wait(-1)
        except KeyboardInterrupt:
            print("Closing.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
