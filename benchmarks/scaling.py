"""``python -m benchmarks.scaling``: fastloss on several threads against one thread.

The ratio is the speed-up of several threads.
"""

import sys
from contextlib import ExitStack

from benchmarks import cli
from benchmarks.cells import cells
from benchmarks.format import cell_lines, closing_lines, introduction
from benchmarks.measure import Effort, means, measure
from benchmarks.peers import Peer


def main(argv=None):
    parser = cli.parser("benchmarks.scaling", __doc__)
    add = parser.add_argument
    add("--threads", type=int, default=cli.allowed_processors(), help="default: %(default)s")
    add("--rounds", type=int, default=7, help="rounds per cell; default: %(default)s")
    options = parser.parse_args(argv)
    effort = Effort(options.rounds)
    run = cli.run_info("scaling", "benchmarks.scaling", argv, isa=options.isa, cells=[])
    with ExitStack() as stack:
        threads_by_name = {f"{options.threads} threads": options.threads, "1 thread": 1}
        peers = {
            name: stack.enter_context(Peer("fastloss", threads, isa=options.isa))
            for name, threads in threads_by_name.items()
        }
        print(run["processor"] + introduction(options.rounds))
        for cell in cli.select(cells(), options):
            run["cells"].append(measure(cell, peers, effort))
            print("\n".join(cell_lines(run["cells"][-1], peers)), flush=True)
    run["means"] = means(run["cells"])
    print("\n".join(closing_lines(run)))
    if options.json:
        cli.write_json(options.json, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
