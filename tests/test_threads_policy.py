"""The initial number of threads, from simulated environments, /proc and /sys."""

import os
import warnings

import pytest

from fastloss import _threads

V2_MOUNT = "30 23 0:26 {root} {point} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "31 25 0:27 {root} {point} rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHER_MOUNTS = """\
23 29 0:22 / /proc rw,nosuid shared:12 - proc proc rw
28 25 0:24 / /sys/fs/cgroup/cpuset rw shared:5 - cgroup cgroup rw,cpuset
"""


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(_threads, "_affinity", lambda: 16)


class Machine:
    """A folder in place of /."""

    def __init__(self, root):
        self.root = root

    def write(self, path, text):
        path = self.root / path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def cgroup(self, text, *mounts):
        self.write("proc/self/cgroup", text)
        self.write("proc/self/mountinfo", OTHER_MOUNTS + "\n".join(mounts) + "\n")

    def v2(self, path="/", mount_root="/", point="/sys/fs/cgroup"):
        self.cgroup(f"0::{path}\n", V2_MOUNT.format(root=mount_root, point=point))

    def v1(self, path="/", mount_root="/", point="/sys/fs/cgroup/cpu,cpuacct"):
        self.cgroup(
            f"5:cpuset:/elsewhere\n4:cpu,cpuacct:{path}\n0::/\n",
            V1_MOUNT.format(root=mount_root, point=point),
        )

    def v1_quota(self, folder, quota, period):
        self.write(f"sys/fs/cgroup/cpu,cpuacct/{folder}/cpu.cfs_quota_us", f"{quota}\n")
        self.write(f"sys/fs/cgroup/cpu,cpuacct/{folder}/cpu.cfs_period_us", f"{period}\n")

    def start(self, **environ):
        threads, source, _ = _threads.starting_threads(self.root, environ)
        return threads, source


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_cores(machine):
    assert machine.start() == (16, "cores")


def test_unknown_cores(machine, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(_threads, "_affinity", lambda: None)
    assert machine.start() == (1, "cores")


def test_affinity(machine, monkeypatch):
    monkeypatch.setattr(_threads, "_affinity", lambda: 3)
    assert machine.start() == (3, "affinity")


def test_affinity_of_this_process(monkeypatch):
    monkeypatch.undo()
    usable = _threads._affinity()
    assert usable is None or usable >= 1


@pytest.mark.parametrize("variable", ["FASTLOSS_NUM_THREADS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize(
    ("value", "threads"), [("1", 1), ("5", 5), (" 7 ", 7), ("03", 3), ("1024", 1024)]
)
def test_variable(machine, variable, value, threads):
    assert machine.start(**{variable: value}) == (threads, variable)


def test_fastloss_variable_takes_precedence(machine):
    start = machine.start(FASTLOSS_NUM_THREADS="2", OMP_NUM_THREADS="4")
    assert start == (2, "FASTLOSS_NUM_THREADS")


def test_variables_take_precedence_over_the_quota(machine):
    machine.v2()
    machine.write("sys/fs/cgroup/cpu.max", "200000 100000")
    assert machine.start(OMP_NUM_THREADS="8") == (8, "OMP_NUM_THREADS")


@pytest.mark.parametrize("value", ["4,2", "4, 2", " 4 ,2,1", "4,"])
def test_openmp_list(machine, value):
    assert machine.start(OMP_NUM_THREADS=value) == (4, "OMP_NUM_THREADS")


BAD = [
    "0",
    "-1",
    "abc",
    "",
    " ",
    "1.5",
    "1e3",
    "+4",
    "1_0",
    "0x4",
    "٣",
    "²",
    "\x00",
    "1025",
]
BAD += ["99999999999999999999", "9" * 10000, "\udcff"]


@pytest.mark.parametrize("value", [*BAD, "4,2"])
def test_bad_fastloss_variable(machine, value):
    with pytest.warns(RuntimeWarning) as caught:
        assert machine.start(FASTLOSS_NUM_THREADS=value) == (16, "cores")
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith(f"FASTLOSS_NUM_THREADS={value[:40]!r}")
    assert message.endswith("using 16 instead (cores)")
    assert len(message) < 400


@pytest.mark.parametrize("value", [*BAD, ",4", "abc,2"])
def test_bad_openmp_variable(machine, value):
    with pytest.warns(RuntimeWarning, match="OMP_NUM_THREADS="):
        assert machine.start(OMP_NUM_THREADS=value) == (16, "cores")


def test_bad_fastloss_variable_falls_back_on_openmps(machine):
    with pytest.warns(RuntimeWarning, match=r"using 4 instead \(OMP_NUM_THREADS\)"):
        start = machine.start(FASTLOSS_NUM_THREADS="many", OMP_NUM_THREADS="4")
    assert start == (4, "OMP_NUM_THREADS")


def test_two_bad_variables_warn_twice(machine):
    with pytest.warns(RuntimeWarning) as caught:
        assert machine.start(FASTLOSS_NUM_THREADS="0", OMP_NUM_THREADS="0") == (
            16,
            "cores",
        )
    assert len(caught) == 2


def test_warnings_as_errors_do_not_fail(machine, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert machine.start(FASTLOSS_NUM_THREADS="many") == (16, "cores")
    assert "FASTLOSS_NUM_THREADS='many'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "threads", "cpus"),
    [
        ("150000 100000\n", 1, "1.50"),
        ("200000 100000\n", 2, "2.00"),
        ("299999 100000\n", 2, "3.00"),
        ("1000 100000\n", 1, "0.01"),
        ("25000 5000\n", 5, "5.00"),
    ],
)
def test_v2_quota_is_rounded_down(machine, text, threads, cpus):
    machine.v2("/user.slice/app")
    machine.write("sys/fs/cgroup/user.slice/app/cpu.max", text)
    assert machine.start() == (threads, f"cgroup quota {cpus} CPUs")


@pytest.mark.parametrize("limited", ["", "/pod", "/pod/container", "/pod/container/own"])
def test_v2_ancestors_count(machine, limited):
    machine.v2("/pod/container/own")
    for folder in ["/pod", "/pod/container", "/pod/container/own"]:
        machine.write(f"sys/fs/cgroup{folder}/cpu.max", "max 100000")
    machine.write("sys/fs/cgroup/cpu.stat", "usage_usec 1")
    machine.write(f"sys/fs/cgroup{limited}/cpu.max", "300000 100000")
    machine.write("sys/fs/cgroup/sibling/cpu.max", "100000 100000")
    assert machine.start() == (3, "cgroup quota 3.00 CPUs")


def test_smallest_of_several_quotas(machine):
    machine.v2("/a/b")
    machine.write("sys/fs/cgroup/cpu.max", "800000 100000")
    machine.write("sys/fs/cgroup/a/cpu.max", "40000 10000")
    machine.write("sys/fs/cgroup/a/b/cpu.max", "600000 100000")
    assert machine.start() == (4, "cgroup quota 4.00 CPUs")


def test_v2_partly_mounted(machine):
    machine.v2("/docker/0123/own", mount_root="/docker/0123")
    machine.write("sys/fs/cgroup/cpu.max", "500000 100000")
    machine.write("sys/fs/cgroup/own/cpu.max", "300000 100000")
    machine.write("sys/fs/cgroup/docker/0123/own/cpu.max", "100000 100000")
    assert machine.start() == (3, "cgroup quota 3.00 CPUs")


@pytest.mark.parametrize("path", ["/docker/of/the/host", "/../../elsewhere"])
@pytest.mark.parametrize("mount_root", ["/", "/docker/0123", "/../.."])
def test_v2_path_that_is_not_mounted(machine, path, mount_root):
    machine.v2(path, mount_root=mount_root)
    machine.write("sys/fs/cgroup/cpu.max", "500000 100000")
    assert machine.start() == (5, "cgroup quota 5.00 CPUs")


def test_mount_point_with_odd_characters(machine):
    machine.v2("/own", point="/my\\040cgroups\\134here")
    machine.write("my cgroups\\here/own/cpu.max", "500000 100000")
    assert machine.start() == (5, "cgroup quota 5.00 CPUs")


def test_quota_at_or_above_the_cores_is_not_the_reason(machine):
    machine.v2()
    machine.write("sys/fs/cgroup/cpu.max", "1600000 100000")
    assert machine.start() == (16, "cores")


def test_affinity_below_the_quota(machine, monkeypatch):
    monkeypatch.setattr(_threads, "_affinity", lambda: 2)
    machine.v2()
    machine.write("sys/fs/cgroup/cpu.max", "300000 100000")
    assert machine.start() == (2, "affinity")


def test_v1_quota(machine):
    machine.v1("/docker/0123")
    machine.v1_quota("docker/0123", 350000, 100000)
    assert machine.start() == (3, "cgroup quota 3.50 CPUs")


def test_v1_ancestor(machine):
    machine.v1("/docker/0123")
    machine.v1_quota("docker", 200000, 100000)
    machine.v1_quota("docker/0123", -1, 100000)
    assert machine.start() == (2, "cgroup quota 2.00 CPUs")


def test_v1_partly_mounted(machine):
    machine.v1("/docker/0123", mount_root="/docker/0123")
    machine.v1_quota("", 200000, 100000)
    assert machine.start() == (2, "cgroup quota 2.00 CPUs")


def test_v1_and_v2_together(machine):
    machine.cgroup(
        "4:cpu:/one\n0::/two\n",
        V1_MOUNT.format(root="/", point="/sys/fs/cgroup/cpu,cpuacct"),
        V2_MOUNT.format(root="/", point="/sys/fs/cgroup/unified"),
    )
    machine.v1_quota("one", 600000, 100000)
    machine.write("sys/fs/cgroup/unified/two/cpu.max", "700000 100000")
    assert machine.start() == (6, "cgroup quota 6.00 CPUs")


@pytest.mark.parametrize(
    "text",
    [
        "max 100000",
        "max",
        "",
        "\n",
        "abc def",
        "0 0",
        "0 100000",
        "100000 0",
        "-1 100000",
        "100000",
        "1" * 5000 + " 100000",
        b"\xff\xfe\x00 1",
        "200000.5 100000",
    ],
)
def test_no_quota_in_an_odd_file(machine, text):
    machine.v2()
    machine.write("sys/fs/cgroup/cpu.max", text)
    assert machine.start() == (16, "cores")


@pytest.mark.parametrize("quota", ["-1", "0", "", "abc"])
def test_no_v1_quota(machine, quota):
    machine.v1("/own")
    machine.v1_quota("own", quota, 100000)
    assert machine.start() == (16, "cores")


@pytest.mark.parametrize(
    "text", ["", "0", "0:", "0::", "::::", "0::relative", b"\xff\x00\n", "4:cpu"]
)
def test_odd_cgroup_file(machine, text):
    machine.v2()
    machine.write("proc/self/cgroup", text)
    assert machine.start() == (16, "cores")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        " - ",
        " - cgroup2",
        "1 2 - cgroup2",
        "1 2 3 / - cgroup2 x y",
        "1 2 3 / \x00 - cgroup2 x y",
        "1 2 3 / /nowhere - cgroup2",
        "1 2 3 / /nowhere - cgroup",
        b"\xff\x00 / / - cgroup2 \xfe",
    ],
)
def test_odd_mountinfo(machine, text):
    machine.v2("/own")
    machine.write("proc/self/mountinfo", text)
    assert machine.start() == (16, "cores")


def test_folders_in_place_of_files(machine):
    machine.v2()
    (machine.root / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    assert machine.start() == (16, "cores")
    (machine.root / "proc/self/mountinfo").unlink()
    (machine.root / "proc/self/mountinfo").mkdir()
    assert machine.start() == (16, "cores")


def test_this_machine():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads, reason, _ = _threads.starting_threads()
    assert 1 <= threads <= _threads.MAX_THREADS
    assert reason
