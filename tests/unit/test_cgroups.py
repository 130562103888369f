"""Cgroup ids to paths to names, on trees made of real directories."""

import pytest
from eni53.inventory.cgroups import CgroupTree, find_root, workload_of_path
from eni53.model import Workload

ID = "0123456789abcdef" * 4
UNIT = "system.slice/chronyd.service"


class Clock:
    """Seconds that a test moves."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        """Now."""
        return self.now_s


@pytest.fixture
def clock():
    """One for the tree."""
    return Clock()


@pytest.fixture
def tree(tmp_path, clock):
    """A tree with one unit in it."""
    (tmp_path / "cg" / UNIT).mkdir(parents=True)
    return CgroupTree(tmp_path / "cg", clock, tmp_path / "proc")


def inode(tmp_path, path):
    """The id of the cgroup at *path*."""
    return (tmp_path / "cg" / path).stat().st_ino


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw", "/sys/fs/cgroup"),
        ("31 24 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw",
         "/sys/fs/cgroup/unified"),
        ("32 24 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", None),
        ("", None),
    ],
    ids=["v2", "hybrid", "v1", "empty"],
)  # fmt: skip
def test_the_tree_is_found_by_its_mount(tmp_path, line, expected):
    """Pure v2 and hybrid machines have it in other places; v1 alone has none."""
    info = tmp_path / "mountinfo"
    info.write_text(f"22 1 8:1 / / rw - ext4 /dev/root rw\n{line}\n")
    assert find_root(info) == (expected and type(tmp_path)(expected))
    assert find_root(tmp_path / "absent") is None


def test_an_id_is_the_inode_of_its_directory(tmp_path, tree):
    """Any depth, and the root itself."""
    assert tree.path_of(inode(tmp_path, UNIT)) == f"/{UNIT}"
    assert tree.path_of(inode(tmp_path, ".")) == "/"
    assert tree.path_of(1 << 60) is None


def test_an_unknown_id_costs_one_walk_a_second(tmp_path, tree, clock):
    """A cgroup that appears just after a walk is found by the next one."""
    assert tree.path_of(1 << 60) is None
    (tmp_path / "cg" / "new.service").mkdir()
    number = inode(tmp_path, "new.service")
    clock.now_s += 0.9
    assert tree.path_of(number) is None
    clock.now_s += 0.2
    assert tree.path_of(number) == "/new.service"


def test_what_is_gone_keeps_its_path_and_does_not_exist(tmp_path, tree, clock):
    """Its packets are still being reported; but its rows may be given up."""
    number = inode(tmp_path, UNIT)
    assert (tree.path_of(number), tree.exists(number)) == (f"/{UNIT}", True)
    (tmp_path / "cg" / UNIT).rmdir()
    clock.now_s += 2
    tree.path_of(1 << 60)
    assert (tree.path_of(number), tree.exists(number)) == (f"/{UNIT}", False)


def test_a_path_made_anew_is_another_cgroup(tmp_path, tree):
    """A unit that starts again has a new id under the old path."""
    number = inode(tmp_path, UNIT)
    tree.path_of(number)
    (tmp_path / "cg" / UNIT).rename(tmp_path / "elsewhere")
    (tmp_path / "cg" / UNIT).mkdir()
    assert tree.exists(number) is False
    assert tree.id_of(f"/{UNIT}") == inode(tmp_path, UNIT)


def test_without_a_tree_nothing_is_found(tmp_path):
    """v1 alone: no error, no name."""
    tree = CgroupTree(None)
    assert tree.available is False
    assert (tree.path_of(1), tree.id_of("/"), tree.exists(1)) == (None, None, False)
    assert tree.of_container(ID, 1) is None


def process(tmp_path, pid, path):
    """A process whose /proc says it is in *path*."""
    (tmp_path / "proc" / str(pid)).mkdir(parents=True)
    (tmp_path / "proc" / str(pid) / "cgroup").write_text(f"4:memory:/x/{ID}\n0::{path}\n")


@pytest.mark.parametrize("path", [f"docker/{ID}", f"system.slice/docker-{ID}.scope"])
def test_a_containers_cgroup_is_that_of_its_process(tmp_path, tree, path):
    """Both drivers, cgroupfs and systemd."""
    (tmp_path / "cg" / path).mkdir(parents=True)
    process(tmp_path, 42, f"/{path}")
    assert tree.of_container(ID, 42) == (f"/{path}", inode(tmp_path, path))


@pytest.mark.parametrize("said", ["/", "/../..", f"/../../docker/{ID}", f"/gone/{ID}"])
def test_a_relative_path_is_not_believed(tmp_path, tree, said):
    """From a private cgroup namespace /proc lies: the id is looked for in the tree, at once."""
    tree.path_of(1 << 60)  # the walk of this second is spent
    inner = tmp_path / "cg" / "docker" / ID / "init.scope"
    inner.mkdir(parents=True)
    tree.id_of(f"/docker/{ID}/init.scope")  # one below it is known already
    process(tmp_path, 42, said)
    assert tree.of_container(ID, 42) == (f"/docker/{ID}", inode(tmp_path, f"docker/{ID}"))


def test_a_process_that_is_gone_is_looked_for_too(tmp_path, tree):
    """No pid, no /proc: the tree may still have it; when not, None."""
    assert tree.of_container(ID, None) is None
    (tmp_path / "cg" / ID).mkdir()
    assert tree.of_container(ID, 4711) == (f"/{ID}", inode(tmp_path, ID))


class TestContainers:
    """Who is there when no runtime tells."""

    @pytest.fixture
    def put(self, tmp_path):
        """Makes a cgroup with processes in it."""

        def put(path, *pids):
            (tmp_path / "cg" / path).mkdir(parents=True, exist_ok=True)
            procs = tmp_path / "cg" / path / "cgroup.procs"
            procs.write_text("".join(f"{pid}\n" for pid in pids))

        return put

    def test_each_with_its_first_process(self, tree, put):
        """Of every driver and runtime; services and users are none."""
        ids = [f"{n:064x}" for n in range(4)]
        put(f"docker/{ids[0]}", 10, 11)
        put(f"system.slice/docker-{ids[1]}.scope", 20)
        put(f"kubepods.slice/kubepods-pod1.slice/cri-containerd-{ids[2]}.scope", 30)
        put(f"ecs/t1/{ids[3]}", 40)
        put("system.slice/cron.service", 50)
        put(f"deploy/{ID[:-1]}", 60)
        put("docker", 70)
        assert tree.containers() == dict(zip(ids, (10, 20, 30, 40), strict=True))

    def test_one_with_an_init_system_is_found_below(self, tree, put):
        """Its own cgroup is empty then, and those below it are not other containers."""
        put(f"docker/{ID}")
        put(f"docker/{ID}/init.scope", 10)
        put(f"docker/{ID}/system.slice/cron.service", 11)
        assert tree.containers() == {ID: 10}

    def test_its_own_process_comes_before_those_below(self, tree, put):
        """Also when both have some."""
        put(f"docker/{ID}/a", 11)
        put(f"docker/{ID}", 10)
        assert tree.containers() == {ID: 10}

    @pytest.mark.parametrize("text", ["", "\n", "x\n", "-\n", None])
    def test_one_without_a_process_is_not_there(self, tmp_path, tree, put, text):
        """Ended, or a file that says nothing of use."""
        put(f"docker/{ID}", 10)
        procs = tmp_path / "cg" / "docker" / ID / "cgroup.procs"
        if text is None:
            procs.unlink()
        else:
            procs.write_text(text)
        assert tree.containers() == {}

    def test_it_looks_every_time(self, tmp_path, tree, put):
        """One that has just come is there, one that has gone is not; the path stays known."""
        assert tree.containers() == {}
        put(f"docker/{ID}", 10)
        assert tree.containers() == {ID: 10}
        number = inode(tmp_path, f"docker/{ID}")
        (tmp_path / "cg" / "docker" / ID / "cgroup.procs").unlink()
        (tmp_path / "cg" / "docker" / ID).rmdir()
        assert tree.containers() == {}
        assert tree.path_of(number) == f"/docker/{ID}"

    def test_without_a_tree_there_is_nobody(self):
        """v1 alone."""
        assert CgroupTree(None).containers() == {}


def test_links_are_not_followed(tmp_path, tree):
    """A loop of links would be a walk without an end."""
    (tmp_path / "cg" / "loop").symlink_to(tmp_path / "cg")
    assert tree.path_of((tmp_path / "cg" / "loop").lstat().st_ino) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/docker/{ID}", ("container", ID[:12])),
        (f"/system.slice/docker-{ID}.scope", ("container", ID[:12])),
        (f"/kubepods.slice/kubepods-burstable.slice/cri-containerd-{ID}.scope",
         ("container", ID[:12])),
        (f"/ecs/6f1d/{ID}", ("container", ID[:12])),
        (f"/docker/{ID}/init.scope", ("container", ID[:12])),
        (f"/docker/{ID}/system.slice/cron.service", ("container", ID[:12])),
        ("/system.slice/chronyd.service", ("host", "chronyd.service")),
        ("/system.slice/docker.service/inner", ("host", "docker.service")),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
         ("host", "x.service")),
        ("/user.slice/user-1000.slice/session-17.scope", ("host", "user-1000.slice")),
        ("/system.slice/run-r0a1b2c.scope", ("host", "system.slice")),
        ("/system.slice/run-u7.service", ("host", "system.slice")),
        ("/session-3.scope", ("host", "/session-3.scope")),
        ("/init.scope", ("host", "init.scope")),
        ("/mine/below", ("host", "/mine/below")),
        (f"/deploy/{ID}0", ("host", f"/deploy/{ID}0")),
        (f"/deploy/{ID[:-1]}", ("host", f"/deploy/{ID[:-1]}")),
    ],
)  # fmt: skip
def test_a_path_names_its_cgroup(path, expected):
    """Containers by short id, units by name, else the path; what passes, by its slice."""
    kind, name = expected
    assert workload_of_path(path) == Workload(kind, workload=name)
