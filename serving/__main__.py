"""`python -m serving` is `serve`."""

from serving.cli import main

if __name__ == "__main__":
    main()
