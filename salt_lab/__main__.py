"""``python -m salt_lab``: the same as ``salt-lab``."""

from salt_lab.cli.main import main

if __name__ == "__main__":
    main()
