#!/usr/bin/env python
import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    if sys.argv[1:] == ["demo"]:
        # Not a command like others: it starts the servers first whose addresses the settings then read.
        from demo.run import demo

        sys.exit(demo())
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
