"""Why a step decided as it did: one member per reason, each with its sentence.

A sentence says what happened, where, and for a drop what a person can do or expect.
`{names}` are filled from the step's arguments, and only when somebody reads them.

Rule of this file: no drop, consumption or hold anywhere in emunet without a member
here; a member's name is its code in JSON and in captures.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import Any

from emunet.packet.address import format_ip, format_mac


class Kind(Enum):
    """What a reason says happened to the frame."""

    PASS = "pass"
    DELIVERED = "delivered"
    CONSUMED = "consumed"
    DROPPED = "dropped"
    HELD = "queued"


@unique
class Reason(Enum):
    """Every reason a step can give. The value is (kind, sentence)."""

    # Ethernet and ports
    ENTERED = (Kind.PASS, "enters by {port}")
    TRANSMITTED = (Kind.PASS, "leaves by {port}")
    RUNT = (
        Kind.DROPPED,
        "the frame is {length} bytes, shorter than an Ethernet header of 14: it cannot be read at {device}",
    )
    OVERSIZED = (
        Kind.DROPPED,
        "the frame carries {length} bytes, more than the MTU {mtu} of {port}: a bridge drops it silently",
    )
    GROUP_SOURCE = (
        Kind.DROPPED,
        "its source MAC {mac} is a group, broadcast or zero address, which no station may send from",
    )
    NO_CARRIER = (Kind.DROPPED, "port {port} of {device} has nothing attached or its link is down: see `emunet link`")
    NOT_FOR_US = (Kind.DROPPED, "its destination MAC {mac} is not that of {interface}, so {device} ignores it")
    UNKNOWN_ETHERTYPE = (Kind.DROPPED, "nothing on {interface} handles EtherType 0x{ethertype}")
    LOOP = (Kind.DROPPED, "it passed {hops} devices without an end: there is a forwarding loop through {device}")
    STEP_LIMIT = (Kind.DROPPED, "{device} took {steps} steps without an end: its elements forward in a circle")
    DEVICE_GONE = (Kind.DROPPED, "the device that held it was taken out of the lab")
    WIRE_DOWN = (Kind.DROPPED, "wire {wire} is down: `emunet link {wire} --up` brings it back")
    WIRE_LOST = (Kind.DROPPED, "wire {wire} lost it, as its impairment asks")
    WIRE_QUEUE_FULL = (Kind.DROPPED, "too much waits for the rate of wire {wire}: the newest is dropped")
    WIRE_TOO_LONG = (Kind.DROPPED, "it is longer than wire {wire} carries, and nobody is told")
    WIRE_PARTITIONED = (Kind.DROPPED, "it comes from the other side of a partition: `emunet partition --heal` ends it")
    DEVICE_OFF = (Kind.DROPPED, "{device} is powered off: `emunet host {device} --on` brings it back")
    ELEMENT_FAULT = (
        Kind.DROPPED,
        "{element} of {device} failed on it ({error}): a fault of emunet; the lab's log has it all, please report it",
    )
    EDGE_FULL = (Kind.DROPPED, "the receive queue of {port} is full: its stack reads more slowly than frames arrive")
    RECEIVED = (Kind.DELIVERED, "reaches {port}")
    DELIVERED_LOCALLY = (Kind.PASS, "is for {device} itself: its own sockets get it on {interface}")

    STAYS_INSIDE = (Kind.DELIVERED, "{address} is {port} itself: it stays inside")

    # Bridge
    BRIDGE_FORWARD = (Kind.PASS, "{mac} was learned on {port}")
    BRIDGE_FLOOD = (Kind.PASS, "{mac} is not known: a copy goes to each other port ({ports})")
    BRIDGE_GROUP = (Kind.PASS, "{mac} is a group address: a copy goes to each other port ({ports})")
    BRIDGE_UP = (Kind.PASS, "{mac} is {interface} itself: up to layer 3")
    BRIDGE_FILTERED = (
        Kind.DROPPED,
        "{mac} was learned on {port}, where the frame came from: the bridge has nothing to do",
    )
    BRIDGE_ISOLATED = (Kind.DROPPED, "{mac} is on {port}, and {port} and {entered} are isolated from each other")
    BRIDGE_NO_PORT = (Kind.DROPPED, "bridge {bridge} has no other port for {mac}")
    BRIDGE_RESERVED = (
        Kind.DROPPED,
        "{mac} is reserved for the link itself (IEEE 802.1D 7.12.6): bridges never forward it",
    )

    # IP headers
    IP_VALID = (Kind.PASS, "IP header is sound")
    NOT_IP = (Kind.PASS, "not IP: passes as it is")
    IP_TRUNCATED = (Kind.DROPPED, "its IP header says {claimed} bytes, the frame has {length}")
    IP_BAD_VERSION = (Kind.DROPPED, "its IP version is {version}, which its EtherType contradicts")
    IP_BAD_HEADER_LENGTH = (Kind.DROPPED, "its IP header length of {length} bytes is impossible")
    IP_BAD_CHECKSUM = (Kind.DROPPED, "its IP header checksum is wrong: it was damaged on the way or badly made")
    MARTIAN_SOURCE = (Kind.DROPPED, "source {source} can never come from outside {device}")
    MARTIAN_DESTINATION = (Kind.DROPPED, "destination {destination} can never come from outside {device}")
    REVERSE_PATH = (
        Kind.DROPPED,
        "{device} would not answer {source} by {interface}, so its rp_filter disbelieves it (RFC 3704)",
    )
    NOT_FORWARDING = (
        Kind.DROPPED,
        "{destination} is not {device}, which forwards nothing that comes in by {interface}",
    )

    # Fragments that are put together
    NOT_REASSEMBLED = (Kind.PASS, "no reassembly needed")
    NOT_CUT = (Kind.PASS, "leaves as it came: it was not put together here")
    REASSEMBLED = (Kind.CONSUMED, "{count} fragments make a datagram of {length} bytes again: {device} needs its ports")
    FRAGMENT_WAITS = (Kind.HELD, "bytes {start} to {end} of datagram {identification} wait at {device} for the rest")
    FRAGMENT_DUPLICATE = (Kind.DROPPED, "this part of datagram {identification} was there before")
    FRAGMENT_MALFORMED = (Kind.DROPPED, "it is a fragment that no datagram has: {problem}")
    REASSEMBLY_CONTRADICTION = (Kind.DROPPED, "its datagram was given up by {device}: {problem}")
    REASSEMBLY_FULL = (Kind.DROPPED, "more than {limit} bytes of fragments wait at {device}: the oldest make room")
    REASSEMBLY_TIMEOUT = (Kind.DROPPED, "the rest of datagram {identification} never came to {device}{sent}")

    # Connections
    NOT_TRACKED = (Kind.PASS, "no connection tracking here")
    CONNECTION_NEW = (Kind.PASS, "first packet of a connection: {connection}")
    CONNECTION_KNOWN = (Kind.PASS, "of a known connection: {connection}")
    CONNECTION_RELATED = (Kind.PASS, "an error about a known connection: {connection}")
    CONNECTION_INVALID = (Kind.PASS, "of no connection: {problem}")
    CONNECTION_INVALID_DROPPED = (Kind.DROPPED, "it is of no connection, and {device} forwards only what is")
    CONNECTIONS_FULL = (
        Kind.DROPPED,
        "the {capacity} connections that {device} can remember are all alive: try again when some have ended",
    )
    PUBLISHED = (Kind.PASS, "{address}:{port} of {device} is published: it leads to {target}:{target_port}")

    SERVICE = (Kind.PASS, "{service} -> {backend}, {number} of {count}{notes}")
    SERVICE_OTHER_PORT = (
        Kind.PASS,
        "{address} is an address of Services and of no machine: only {services} lead anywhere, this is routed as it is",
    )
    SERVICE_NO_ENDPOINTS = (
        Kind.DROPPED,
        "{service} has no endpoint, so {device} refuses it: make a pod ready that its selector matches{sent}",
    )
    SERVICE_NO_LOCAL = (
        Kind.DROPPED,
        "{service} has no endpoint on {device} (of {count}) and its traffic policy is Local: dropped silently{sent}",
    )
    SERVICE_SOURCE_REFUSED = (
        Kind.DROPPED,
        "{service} takes callers of {ranges} only (loadBalancerSourceRanges), and not {source}: dropped silently{sent}",
    )

    # Bridges that an engine keeps apart
    NOT_ISOLATED = (Kind.PASS, "no bridge that is kept apart stands in the way")
    ISOLATED_BRIDGES = (
        Kind.DROPPED,
        "{device} keeps the networks of {source} and {target} apart: connect both containers to one network, or "
        "publish a port",
    )
    ISOLATED_INTERNAL = (
        Kind.DROPPED,
        "{interface} of {device} is the bridge of an internal network: nothing goes out of it or comes in",
    )
    ISOLATED_UNPUBLISHED = (
        Kind.DROPPED,
        "{interface} of {device} lets in only answers and what was sent to a published port: publish this one "
        "(`docker run -p`)",
    )
    ISOLATED_STATIONS = (
        Kind.DROPPED,
        "containers on {interface} of {device} may not speak with each other (enable_icc is false)",
    )

    # Policy
    NO_POLICY = (Kind.PASS, "no policy applies")
    POLICY_PERMITTED = (Kind.PASS, "permitted: {why}")
    POLICY_CONNECTION = (Kind.PASS, "of a connection that was permitted when it began")
    POLICY_OWN_NODE = (Kind.PASS, "between a pod and its own node: no policy stops that")
    POLICY_ITSELF = (Kind.PASS, "a pod to itself: no policy stops that")
    POLICY_DISCOVERY = (Kind.PASS, "neighbour discovery: no policy stops that")
    POLICY_INGRESS = (
        Kind.DROPPED,
        "{source} may not send to {target}: ingress of {pod} is isolated by {policy}; {why}{answers}",
    )
    POLICY_EGRESS = (
        Kind.DROPPED,
        "{source} may not send to {target}: egress of {pod} is isolated by {policy}; {why}{answers}",
    )

    # Sources
    NOT_TRANSLATED = (Kind.PASS, "source kept")
    SOURCE_TRANSLATED = (Kind.PASS, "comes from {address} for whoever gets it, as chosen when its connection began")
    MASQUERADED = (Kind.PASS, "its source becomes {address}, of {interface} that it leaves by")
    MASQUERADE_NO_ADDRESS = (Kind.DROPPED, "{device} has no address of its family to masquerade it with on {interface}")
    MASQUERADE_MOVED = (
        Kind.DROPPED,
        "its connection was masqueraded to leave by {before}, now it leaves by {interface}: it must begin anew",
    )
    NAT_PORTS_EXHAUSTED = (
        Kind.DROPPED,
        "{device} found no {protocol} port of {address} that is free towards {destination}:"
        " wait until connections end, or give it another address",
    )
    REDIRECT_TRANSLATED = (Kind.DROPPED, "a redirect about a translated connection would mislead: {device} drops it")

    # Layer 3
    LINK_IP = (Kind.PASS, "IP for {interface}")
    LINK_ARP = (Kind.PASS, "ARP on {interface}")
    ROUTED = (Kind.PASS, "{prefix} {via}dev {interface}{ttl}")
    LOCAL_ROUTED = (Kind.PASS, "own packet: {prefix} {via}dev {interface}")
    FOR_US = (Kind.PASS, "{address} is an address of {device}")
    MULTICAST_FOR_US = (Kind.PASS, "{device} listens to {address}")
    FRAGMENTED = (Kind.PASS, "{length} bytes do not fit the MTU {mtu} of {interface}: cut into {count} fragments")
    FITS = (Kind.PASS, "fits the MTU {mtu}")
    TTL_EXPIRED = (Kind.DROPPED, "its TTL of {ttl} ends at {device}{sent}")
    NO_ROUTE = (Kind.DROPPED, "{device} has no route to {destination} (add one, or a default route){sent}")
    ROUTE_BLACKHOLE = (Kind.DROPPED, "route {prefix} of {device} is a blackhole: silence is intended")
    ROUTE_UNREACHABLE = (Kind.DROPPED, "route {prefix} of {device} says unreachable{sent}")
    ROUTE_PROHIBIT = (Kind.DROPPED, "route {prefix} of {device} prohibits it{sent}")
    TOO_BIG = (
        Kind.DROPPED,
        "{length} bytes do not fit the MTU {mtu} of {interface} and it may not be fragmented{sent}",
    )
    LINK_GROUP_NOT_ROUTED = (
        Kind.DROPPED,
        "a unicast packet in a broadcast or multicast frame is not routed (RFC 1812 5.3.4)",
    )
    NOT_LISTENING = (
        Kind.CONSUMED,
        "{device} does not listen to {destination}: ignored, as by any station that is not meant",
    )
    MULTICAST_NOT_ROUTED = (Kind.DROPPED, "{device} has no multicast route for {destination}")
    BROADCAST_NOT_ROUTED = (
        Kind.DROPPED,
        "{destination} is a broadcast address: a router does not pass it on (RFC 2644)",
    )
    LINK_LOCAL_NOT_ROUTED = (Kind.DROPPED, "{address} is link-local: it never leaves its link (RFC 4291 2.5.6)")
    SOURCE_ROUTE = (Kind.DROPPED, "it asks for source routing, which {device} refuses (accept_source_route 0)")
    IP_OPTION_MALFORMED = (Kind.DROPPED, "its IP option at byte {pointer} is malformed{sent}")

    # Neighbours
    NEIGHBOR_KNOWN = (Kind.PASS, "{address} is at {mac} on {interface} ({state})")
    NEIGHBOR_GROUP = (Kind.PASS, "{address} is a group: its MAC {mac} is computed")
    NEIGHBOR_ASKED = (Kind.HELD, "waits at {device} while {interface} asks who has {address}")
    NEIGHBOR_WAITING = (
        Kind.HELD,
        "waits at {device} behind {count} others: {address} was already asked for on {interface}",
    )
    NEIGHBOR_QUEUE_FULL = (Kind.DROPPED, "too much already waits for {address} on {interface}: the oldest makes room")
    NEIGHBOR_UNREACHABLE = (
        Kind.DROPPED,
        "nobody on {interface} of {device} answered for {address} in {tries} requests{sent}",
    )
    ARP_ANSWERED = (Kind.CONSUMED, "{device} has {address}: answers {asker} with {mac}")
    ARP_PROXIED = (
        Kind.CONSUMED,
        "{address} is reached by way of {device}: answers {asker} in its place after {milliseconds} ms",
    )
    ARP_LEARNED = (Kind.CONSUMED, "{address} is at {mac}: noted for {interface}")
    ARP_IGNORED = (Kind.CONSUMED, "ARP about {address} does not concern {interface}")
    ARP_MALFORMED = (Kind.DROPPED, "its ARP message is malformed: {problem}")
    ND_ANSWERED = (Kind.CONSUMED, "{device} has {address}: answers {asker} with {mac} (neighbour advertisement)")
    ND_DELAYED = (
        Kind.CONSUMED,
        "{device} shares {address} with other routers: answers {asker} after {milliseconds} ms",
    )
    ND_LEARNED = (Kind.CONSUMED, "{address} is at {mac}: neighbour noted for {interface}")
    ND_IGNORED = (Kind.CONSUMED, "neighbour discovery about {address} does not concern {interface}")
    ND_MALFORMED = (Kind.DROPPED, "its neighbour discovery message is malformed: {problem}")

    # VXLAN
    VXLAN_ENCAPSULATED = (Kind.PASS, "inner {mac} is behind {remote}: VNI {vni}, UDP {sport} -> {port}")
    VXLAN_FLOODED = (Kind.PASS, "inner {mac} may be behind any host: a copy goes to each remote ({remotes}), VNI {vni}")
    VXLAN_DECAPSULATED = (Kind.PASS, "VNI {vni} from {remote}")
    VXLAN_NO_REMOTE = (
        Kind.DROPPED,
        "{interface} of {device} knows no host behind inner MAC {mac}, and nothing is flooded on this overlay",
    )
    VXLAN_MALFORMED = (Kind.DROPPED, "its VXLAN header is malformed: {problem}")
    VXLAN_UNKNOWN_VNI = (Kind.DROPPED, "VNI {vni} is not one of {device}")
    VXLAN_ECHO = (Kind.DROPPED, "its inner source MAC {mac} is {interface}'s own: a frame of ours has come back")
    VXLAN_MOVED = (Kind.DROPPED, "inner {mac} is behind {known} by configuration, and this came from {remote}")
    VXLAN_CONGESTED = (
        Kind.DROPPED,
        "its outer header says congestion and its inner packet cannot be told (RFC 6040 4.2)",
    )
    VXLAN_BAD_CHECKSUM = (Kind.DROPPED, "its outer UDP checksum is wrong")

    # Local stack
    LOCAL_SENT = (Kind.PASS, "sent by {device} itself on {interface}")
    LOCAL_DISPATCH = (Kind.PASS, "for {target}")
    TIMER = (Kind.PASS, "{what}")

    @property
    def kind(self) -> Kind:
        """What happened to the frame."""
        kind: Kind = self.value[0]
        return kind

    @property
    def sentence(self) -> str:
        """The sentence with its `{names}` unfilled."""
        sentence: str = self.value[1]
        return sentence


def describe(value: Any) -> str:
    """An argument as people read it: bytes of 6 are a MAC, of 4 or 16 an address."""
    if isinstance(value, bytes):
        if len(value) == 6:
            return format_mac(value)
        if len(value) in (4, 16):
            return format_ip(value)
        return value.hex()
    if type(value) in (tuple, list):  # what has a name for each field has words of its own
        return ", ".join(describe(item) for item in value)
    return str(value)


def fill(reason: Reason, arguments: dict[str, Any]) -> str:
    """The sentence of a reason with its arguments filled in."""
    return reason.sentence.format_map({name: describe(value) for name, value in arguments.items()})
