"""
Checks that the files that `transformers-eilev export --with-code` puts beside a checkpoint can stand alone: each
imports only what lies beside it or comes with transformers, transformers finds these imports, and each compiles. Run
by `make check`.
"""

import sys

from transformers_eilev.hub.remote_code import faults_of, remote_code_files


def main():
    try:
        files = remote_code_files()
    except ValueError as error:
        sys.exit(str(error))
    faults = [fault for file in files for fault in faults_of(file, sys.stdlib_module_names)]
    print("\n".join(faults) or f"The {len(files)} files of remote code can stand alone.")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
