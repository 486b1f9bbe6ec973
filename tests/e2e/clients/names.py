"""A name server that says what a file says.

    names.py ADDRESS PORT FILE

A line of the file is a name and an IPv4 address. Names without a line do not exist (NXDOMAIN); with the line `fail` all
questions are answered with SERVFAIL. The file is read for each question. Answers are good for 0 s.
"""

import socket
import struct
import sys

NO_ERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
A, IN = 1, 1


def question(packet):
    """The name that is asked for, its type, and the end of the question."""
    labels, at = [], 12
    while length := packet[at]:
        labels.append(packet[at + 1 : at + 1 + length].decode("ascii").lower())
        at += 1 + length
    kind, _ = struct.unpack_from("!HH", packet, at + 1)
    return ".".join(labels), kind, at + 5


def answer(packet, lines):
    name, kind, end = question(packet)
    known = [line.split() for line in lines if line and line != "fail"]
    addresses = [address for own, address in known if own == name]
    code = SERVFAIL if "fail" in lines else NO_ERROR if addresses else NXDOMAIN
    if code != NO_ERROR or kind != A:
        addresses = []
    # An authoritative answer with one question, which is repeated (RFC 1035 section 4.1.1).
    head = packet[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(addresses), 0, 0)
    # Records name the question's name by its place in the packet (RFC 1035 section 4.1.4).
    records = [struct.pack("!HHHIH", 0xC00C, A, IN, 0, 4) + socket.inet_aton(address) for address in addresses]
    return head + packet[12:end] + b"".join(records)


def main(address, port, file):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, int(port)))
    while True:
        packet, client = server.recvfrom(4096)
        with open(file, encoding="ascii") as lines:
            server.sendto(answer(packet, lines.read().splitlines()), client)


main(*sys.argv[1:])
