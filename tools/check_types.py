"""Check that type checkers know the types of the public names: ``python -m tools.check_types``.

Pyright reports the share of the public names whose types are known completely. Types of other
packages do not count: pyright knows NumPy's `ArrayLike` only in part.
"""

import json
import subprocess
import sys

LEAST_SCORE = 0.95


def main():
    command = [sys.executable, "-m", "pyright", "--verifytypes", "fastloss", "--ignoreexternal"]
    run = subprocess.run([*command, "--outputjson"], capture_output=True, text=True, check=False)
    try:
        report = json.loads(run.stdout)["typeCompleteness"]
    except (ValueError, KeyError):
        sys.exit(f"pyright failed:\n{run.stdout}{run.stderr}")
    for symbol in report["symbols"]:
        if symbol["isExported"] and not symbol["isTypeKnown"]:
            messages = [d["message"].partition("\n")[0] for d in symbol["diagnostics"]]
            print(symbol["name"], *messages, sep="\n    ")
    score = report["completenessScore"]
    print(f"types are known of {score:.1%} of the public names; required: {LEAST_SCORE:.0%}")
    if score < LEAST_SCORE:
        sys.exit(1)


if __name__ == "__main__":
    main()
