"""Reads the BPF maps into a `Sample`, and writes the few things the programs need to know."""

from __future__ import annotations

import contextlib
import ipaddress
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from ..model import CLASSES, PROTOCOLS
from ..sample import EniCounters, FallbackKey, Origin, Remote, Sample, SenderKey
from . import bpf, layout
from .answered import Answered
from .asked import Asked
from .counters import eni_counters
from .limits import Limits, Place
from .loader import Loaded
from .senders import SenderKeys


class Maps:
    """The maps of one set of loaded programs."""

    def __init__(self, loaded: Loaded) -> None:
        self._keys = SenderKeys()
        self._asked = Asked(loaded, self._keys)
        self._answered = Answered(loaded)
        self._fds = loaded.maps
        self._room = loaded.max_entries
        self._used: dict[str, int] = {}
        self._limits = Limits(self._fds["limits"], layout.SETTINGS["MAX_ENIS"])
        self._unanswered: dict[tuple[int, ...], int] = {}
        self._adding = threading.Lock()  # where netlink is talked, and in the loop

    @property
    def entries(self) -> Mapping[str, tuple[int, int]]:
        """Entries in use at the last read and room, by map."""
        return {name: (used, self._room[name]) for name, used in self._used.items()}

    # --- what the programs are told -------------------------------------------------------

    def set_resolvers(
        self, addresses: Iterable[str], *, write_tags: bool = True, names: bool = True
    ) -> None:
        """Tell the programs which addresses are resolvers.

        Args:
            addresses: IPv4 and IPv6, at most ``MAX_RESOLVERS`` of each family.
            write_tags: False where another dataplane uses ``tc_index`` for itself.
            names: Count what names are asked for.
        """
        parsed = [ipaddress.ip_address(a) for a in addresses]
        most = layout.SETTINGS["MAX_RESOLVERS"]
        four = [a.packed for a in parsed if a.version == 4][:most]
        six = [a.packed for a in parsed if a.version == 6][:most]
        value = layout.SETTINGS_VALUE.packer.pack(
            len(four), len(six), b"".join(four), b"".join(six), int(write_tags), int(names)
        )
        bpf.map_update(self._fds["settings"], _u32(0), value)

    def free_tags(self, tags: Iterable[int]) -> None:
        """Put *tags* into circulation; one that was there already would name two origins."""
        for tag in tags:
            bpf.map_update(self._fds["free_tags"], None, _u32(tag))

    def free_remotes(self, ids: Iterable[int]) -> None:
        """Put ids for remote clients into circulation; the same caution as for `free_tags`."""
        for number in ids:
            bpf.map_update(self._fds["free_remotes"], None, _u32(number))

    def forget_remote(self, address: str) -> bool:
        """Remove a remote client; its id is the caller's to put back. False: it was not there."""
        packed = ipaddress.ip_address(address).packed.ljust(16, b"\0")
        return bpf.map_delete(self._fds["remotes"], packed)

    def set_limit(self, place: Place | None, packets: Sequence[int], basis: str) -> None:
        """When the kernel wakes the agent.

        Args:
            place: (device key, VLAN id) of the ENI; None: every ENI without a limit of its own.
            packets: In a one-second window, for each level from the lowest.
            basis: ``linklocal`` or ``dns``.
        """
        self._limits.set(place, layout.LIMIT.packer.pack(*packets, int(basis == "dns"), 0))

    def add_eni(self, dev: int, vlan: int = 0, *, trunk: bool = False, anew: bool = False) -> None:
        """Start counting on an interface. Nothing is counted on one that was not added.

        Args:
            dev: Its index, or the key of an ENI in a task's namespace.
            vlan: Of a branch ENI, else 0.
            trunk: What is tagged on it belongs to branch ENIs, each met by its first packet.
            anew: What was counted here was another's.

        Raises:
            OSError: There is no room for another one.
        """
        place = dev, vlan
        key, size = layout.ENI_KEY.packer.pack(*place), layout.ENI.packer.size
        with self._adding:
            if trunk:
                bpf.map_update(self._fds["trunks"], _u32(dev), _u32(1))
            if not anew and bpf.map_lookup(self._fds["enis"], key, size) is not None:
                return
            self._unanswered.pop(place, None)
            value = _u32(self._limits.add(place)).ljust(size, b"\0")
            try:
                bpf.map_update(self._fds["enis"], key, value)
            except OSError:
                self._limits.forget(*place)  # or each try takes one more, till nobody has any
                raise

    def remove_eni(self, dev: int) -> None:
        """Forget an interface that is gone, with the branch ENIs that were met on it."""
        bpf.map_delete(self._fds["trunks"], _u32(dev))
        self._unanswered = {k: n for k, n in self._unanswered.items() if k[0] != dev}
        for (found, vlan), _ in list(self._rows("enis")):
            if found == dev:
                bpf.map_delete(self._fds["enis"], layout.ENI_KEY.packer.pack(dev, vlan))
        self._limits.forget(dev)

    def remove_branch(self, dev: int, vlan: int) -> None:
        """Forget one branch ENI; a packet that comes nevertheless makes it known again."""
        with self._adding:
            bpf.map_delete(self._fds["enis"], layout.ENI_KEY.packer.pack(dev, vlan))
            self._unanswered.pop((dev, vlan), None)
            self._limits.forget(dev, vlan)

    def add_veth(self, ifindex: int) -> None:
        """Say that packets from this interface have an owner even without a tag."""
        bpf.map_update(self._fds["veths"], _u32(ifindex), _u32(1))

    def remove_veth(self, ifindex: int) -> None:
        """The opposite of `add_veth`."""
        bpf.map_delete(self._fds["veths"], _u32(ifindex))

    def forget_origin(self, ifindex: int, cgroup_id: int) -> None:
        """Remove one origin; its tag is the caller's to put back."""
        key = layout.ORIGIN_KEY.packer.pack(cgroup_id, ifindex, 0)
        bpf.map_delete(self._fds["origins"], key)

    def forget_sender(self, key: SenderKey) -> None:
        """Remove one row of the count; only for one that can send no more."""
        packed = layout.SENDER_KEY.packer.pack(
            key.cgroup_id,
            key.dev,
            key.ingress,
            key.vlan,
            key.origin,
            key.asker,
            CLASSES.index(key.packet_class),
            PROTOCOLS.index(key.protocol),
        )
        bpf.map_delete(self._fds["senders"], packed)

    def forget_fallback(self, key: FallbackKey) -> None:
        """Remove a server and who asks it."""
        server = ipaddress.ip_address(key.server).packed.ljust(16, b"\0")
        packed = layout.FALLBACK_KEY.packer.pack(key.cgroup_id, key.dev, key.vlan, server)
        bpf.map_delete(self._fds["fallbacks"], packed)

    # --- what the programs have counted ---------------------------------------------------

    def read(self) -> Sample:
        """Every counter as of now.

        Senders are read before origins and remotes, so whatever a row of theirs refers to is in
        the sample.
        """
        taken_at_ns = time.monotonic_ns()
        self._keys.begin()
        senders = self._senders()
        # After senders: then a name has no more queries than its sender, but in the next sample.
        asked, questions = self._asked.read()
        self._used["asked"] = self._asked.entries[0]
        return Sample(
            taken_at_ns=taken_at_ns,
            senders=senders,
            origins=self._origins(),
            enis=self._enis(taken_at_ns),
            sources=self._sources(),
            remotes=self._remotes(),
            stats=self._stats(),
            asked=asked,
            questions=questions,
            answer_of=self._answered.answer_of,
            fallbacks=self._fallbacks(),
        )

    def close(self) -> None:
        """Let go of what is mapped; nothing is read afterwards."""
        self._asked.close()
        self._answered.close()

    def _rows(self, name: str) -> Iterable[tuple[tuple[int, ...], tuple[int, ...]]]:
        key, value = layout.MAPS[name]
        assert key is not None  # noqa: S101 - queues are never iterated
        keys, values = key.packer, value.packer
        used = 0
        for packed_keys, packed_values in bpf.map_items(
            self._fds[name], keys.size, values.size, self._room[name]
        ):
            pairs = zip(
                keys.iter_unpack(packed_keys), values.iter_unpack(packed_values), strict=True
            )
            for pair in pairs:
                used += 1
                yield pair
        self._used[name] = used

    def _senders(self) -> dict[SenderKey, int]:
        result = {}
        size = layout.SENDER_KEY.packer.size
        for keys, counts in bpf.map_items(self._fds["senders"], size, 8, self._room["senders"]):
            for at, (count,) in enumerate(layout.U64.packer.iter_unpack(counts)):
                result[self._keys.of(bytes(keys[at * size : at * size + size]))] = count
        self._used["senders"] = len(result)
        return result

    def _origins(self) -> dict[tuple[int, int], Origin]:
        result = {}
        for (cgroup, ifindex, _), (*sent, tag, _zero) in self._rows("origins"):
            result[ifindex, cgroup] = Origin(
                ifindex, cgroup, tag, {c: n for c, n in zip(CLASSES, sent, strict=True) if n}
            )
        return result

    def _enis(self, now_ns: int) -> dict[tuple[int, int], EniCounters]:
        result = {}
        for place, words in self._rows("enis"):
            # Two processors that take the same answer twice at one instant take off two; a counter
            # that falls, if only by one, is a restart to Prometheus, and all of it counts again.
            least = self._unanswered.get(place, 0)
            result[place] = eni_counters(words, now_ns, least)
        self._unanswered = {place: counters.unanswered for place, counters in result.items()}
        return result  # type: ignore[return-value]

    def _sources(self) -> dict[tuple[int, int, str, str, str], int]:
        result = {}
        for key, (count,) in self._rows("sources"):
            dev, vlan, klass, protocol, packed = key
            address = _address(packed)  # type: ignore[arg-type]
            result[dev, vlan, address, CLASSES[klass], PROTOCOLS[protocol]] = count
        return result

    def _remotes(self) -> dict[int, Remote]:
        return {
            number: Remote(_address(packed), asked_ns)  # type: ignore[arg-type]
            for (packed,), (asked_ns, number, _) in self._rows("remotes")
        }

    def _fallbacks(self) -> dict[FallbackKey, tuple[int, int, int]]:
        return {
            FallbackKey(dev, vlan, cgroup, _address(server)): counts  # type: ignore[arg-type, misc]
            for (cgroup, dev, vlan, server), counts in self._rows("fallbacks")
        }

    def _stats(self) -> dict[str, int]:
        result = {}
        for index, name in enumerate(layout.STATS):
            value = bpf.map_lookup(self._fds["stats"], _u32(index), 8)
            if value is not None:
                result[name] = int.from_bytes(value, _ORDER)
        return result


_ORDER = sys.byteorder


def _u32(number: int) -> bytes:
    return layout.U32.packer.pack(number)


def _address(packed: bytes) -> str:
    """IPv4 stands in the first four bytes, with zeros behind it."""
    if not any(packed[4:]):
        with contextlib.suppress(ValueError):
            return str(ipaddress.IPv4Address(packed[:4]))
    return str(ipaddress.IPv6Address(packed))
