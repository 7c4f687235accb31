"""`python -m bench`, and the command `bench`."""

import gc


def main() -> None:
    """Run a command of the command line."""
    gc.set_threshold(50_000, 10, 10)  # imports make no garbage; what computes looks for it (bench.run.load)
    from bench.cli.main import main

    main()


if __name__ == "__main__":
    main()
