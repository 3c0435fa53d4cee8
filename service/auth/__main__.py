"""python -m service.auth new NAME --rights infer,read

Prints a new token, for its client, and on standard output its entry for --tokens FILE:

    python -m service.auth new app --rights infer,read >> tokens.toml
"""

import argparse
import sys
from collections.abc import Sequence

from service.auth.tokens import entry, new_token


def main(arguments: Sequence[str]) -> int:
    """Makes an entry; 2 for a name or a right that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m service.auth", description="Makes tokens.")
    commands = parser.add_subparsers(required=True)
    new = commands.add_parser("new", help="prints a token (stderr) and its entry (stdout)")
    new.add_argument("name", help="whose token it is")
    new.add_argument("--rights", required=True, help="infer, read, admin, with commas between")
    options = parser.parse_args(arguments)
    token = new_token()
    try:
        text = entry(options.name, token, options.rights.split(","))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"token, shown this once: {token}", file=sys.stderr)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
