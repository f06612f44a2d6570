"""The command `evalsvc`, also as `python -m evalsvc`."""

import gc


def main() -> None:
    """Run the command line; garbage is collected once a command runs, as collecting takes a quarter of --help."""
    gc.disable()
    from evalsvc.cli import main as run

    run()


if __name__ == "__main__":
    main()
