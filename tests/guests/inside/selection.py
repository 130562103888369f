"""Which tests a guest is for: those whose result another kernel could change.

An emulated processor is twenty times slower, and much of what makes tests/kernel long is the same
on every kernel: agent code that counts to 8191, a parser tried with every value of every field.
That runs on the machine itself, by `make test-kernel`. A test that leans on the kernel belongs in
here; one that is renamed without this list makes every guest fail.
"""

from __future__ import annotations

from collections.abc import Sequence

USUAL = (
    "tests/guests/inside",
    "tests/kernel/test_answers.py::test_answers_are_counted_by_rcode",
    "tests/kernel/test_answers.py::test_an_answer_has_the_latency_of_its_query",
    "tests/kernel/test_answers.py::test_the_latency_of_ipv6_needs_the_whole_address",
    "tests/kernel/test_askers.py",
    "tests/kernel/test_attach.py",
    "tests/kernel/test_chase.py::test_the_target_is_the_askers_too",
    "tests/kernel/test_leftovers.py::test_clsact_leftovers_are_swept",
    "tests/kernel/test_leftovers.py::test_tcx_leaves_nothing_even_when_killed",
    "tests/kernel/test_links.py",
    "tests/kernel/test_loader.py::test_the_compiled_layout_is_the_agents",
    # What each capability allows has changed more than once.
    "tests/kernel/test_loader.py::test_without_privileges_it_says_which[,+bpf,+net_admin]",
    "tests/kernel/test_loader.py::test_the_capabilities_it_asks_for_are_enough",
    "tests/kernel/test_loopback.py",
    "tests/kernel/test_origin.py::test_a_full_table_of_enis_is_noted",
    "tests/kernel/test_origin.py::test_a_full_table_of_senders_counts_in_the_overflow",
    "tests/kernel/test_origin.py::test_each_veth_gets_a_tag_on_first_sight_and_keeps_it",
    "tests/kernel/test_origin.py::test_sources_are_kept_for_packets_nobody_owns",
    "tests/kernel/test_origin.py::test_without_a_free_tag_packets_are_counted_all_the_same",
    "tests/kernel/test_packets.py",
    "tests/kernel/test_parse.py",
    "tests/kernel/test_rootfs.py::test_a_plain_file_and_links_within_its_root",
    "tests/kernel/test_rootfs.py::test_a_trap_tells_nothing_and_holds_up_nobody",
    "tests/kernel/test_sweeps.py::test_cut_at_every_length",
    "tests/kernel/test_task_enis.py",
    "tests/kernel/test_trunk.py",
    "tests/kernel/test_window.py",
)

# One of each kind, in three minutes: for those who run it with everything else.
QUICK = (
    "tests/guests/inside/test_ladder.py",
    "tests/guests/inside/test_trunk.py",
    "tests/kernel/test_attach.py::test_counts_equal_nftables_to_the_packet",
    "tests/kernel/test_attach.py::test_detaching_leaves_nothing",
    "tests/kernel/test_packets.py::test_a_tag_travels_from_the_veth_to_the_eni",
    "tests/kernel/test_parse.py",
    "tests/kernel/test_task_enis.py::test_equal_indexes_are_never_mixed",
    "tests/kernel/test_task_enis.py::test_the_sender_is_the_process",
)

# On a pure cgroup v1 node there is no cgroup to tell: attaching and counting, and what ids are.
WITHOUT_CGROUP2 = ("tests/kernel/test_attach.py", "tests/guests/inside_v1")


# Test runs take no ingress_ifindex there, so nothing can be told of forwarded packets by them.
_NOT_ON_5_10 = (
    "tests/kernel/test_askers.py::test_the_source_of_a_forwarded_query_is_not_counted_twice",
    "tests/kernel/test_local_askers.py::test_a_workload_that_never_answered_is_no_cache",
    "tests/kernel/test_loopback.py::test_a_container_behind_a_veth_is_no_cache_of_the_hosts",
    "tests/kernel/test_origin.py::test_sources_are_kept_for_packets_nobody_owns",
    "tests/kernel/test_trunk.py::test_a_source_on_no_trunk_has_no_vlan",
)


def arguments(version: tuple[int, int], usual: Sequence[str], given: list[str]) -> list[str]:
    """Arguments for pytest on a kernel of *version*; tests *given* take the place of the usual.

    By version and not by asking the kernel: a newer one on which tcx fails must fail here.
    """
    chosen = list(given)
    if not any(word.startswith("tests/") for word in given):
        chosen += usual
    if version < (6, 6):
        chosen += ["-k", "not tcx"]
    if version < (6, 2):
        # A raw socket cannot hand in UDP to be cut into segments before Linux 6.2.
        name = "test_packets.py::test_segments_that_nobody_has_counted[udp4]"
        chosen += [f"--deselect=tests/kernel/{name}"]
    if version < (6, 1):
        chosen += [f"--deselect={test}" for test in _NOT_ON_5_10]
    return chosen


def notes(version: tuple[int, int]) -> list[str]:
    """What a reader of the table should know of this kernel."""
    said = []
    if version < (6, 6):
        said.append("no tcx before 6.6: its tests were not asked for")
    if version < (6, 2):
        said.append("no UDP segmentation from raw sockets before 6.2: its test was not asked for")
    if version < (6, 1):
        said.append("no ingress_ifindex in test runs: five tests were not asked for")
    return said


CHOICES = {"usual": USUAL, "quick": QUICK, "v1": WITHOUT_CGROUP2}
"""By the name that GUEST_TESTS has in a guest."""
