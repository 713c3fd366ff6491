"""``python -m benchmarks.scaling``: fastloss on several threads and on one, in turns.

The ratio says how many times longer one thread takes.
"""

import sys
from contextlib import ExitStack

from benchmarks import command, text
from benchmarks.cells import cells
from benchmarks.measure import Effort, means, measure
from benchmarks.peers import Peer


def main(argv=None):
    parser = command.parser("benchmarks.scaling", __doc__)
    add = parser.add_argument
    add("--threads", type=int, default=command.allowed_processors(), help="default: %(default)s")
    add("--rounds", type=int, default=7, help="turns of each in each cell; default: %(default)s")
    options = parser.parse_args(argv)
    effort = Effort(options.rounds)
    made = command.content("scaling", "benchmarks.scaling", argv, isa=options.isa, cells=[])
    with ExitStack() as stack:
        several = {f"{options.threads} threads": options.threads, "1 thread": 1}
        peers = {
            name: stack.enter_context(Peer("fastloss", threads, isa=options.isa))
            for name, threads in several.items()
        }
        print(made["processor"] + text.introduction(options.rounds))
        for cell in command.chosen(cells(), options):
            made["cells"].append(measure(cell, peers, effort))
            print("\n".join(text.cell_lines(made["cells"][-1], peers)), flush=True)
    made["means"] = means(made["cells"])
    print("\n".join(text.closing_lines(made)))
    if options.json:
        command.write_json(options.json, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
