"""H.264 streams whose parameter sets state no bound on reordering, as many cameras send them."""


class Bits:
    def __init__(self, data):
        self.bits, self.at = "".join(f"{byte:08b}" for byte in data), 0

    def u(self, count):
        self.at += count
        return int(self.bits[self.at - count : self.at] or "0", 2)

    def ue(self):
        zeros = 0
        while self.u(1) == 0:
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)

    def skip_hrd(self):
        count = self.ue() + 1
        self.u(8)
        for _ in range(count):
            self.ue(), self.ue(), self.u(1)
        self.u(20)


def without_bound(sps):
    """A sequence parameter set (7.3.2.1.1 of H.264, High profile, without its start code) that states no bound on reordering.
    The bound is the last that a set has, so it is cut off."""
    bits = Bits(sps[1:].replace(b"\0\0\3", b"\0\0"))
    profile = bits.u(8)
    bits.u(16)
    bits.ue()
    if profile == 100:
        if bits.ue() == 3:
            bits.u(1)
        bits.ue(), bits.ue(), bits.u(1)
        if bits.u(1):
            raise ValueError("a scaling matrix is not read here")
    bits.ue()
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        raise ValueError("order count type 1 is not read here")
    bits.ue(), bits.u(1), bits.ue(), bits.ue()
    if bits.u(1) == 0:
        bits.u(1)
    bits.u(1)
    if bits.u(1):
        for _ in range(4):
            bits.ue()
    if bits.u(1) == 0:
        raise ValueError("the set has no VUI, and so states no bound")
    if bits.u(1) and bits.u(8) == 255:
        bits.u(32)
    if bits.u(1):
        bits.u(1)
    if bits.u(1):
        bits.u(4)
        if bits.u(1):
            bits.u(24)
    if bits.u(1):
        bits.ue(), bits.ue()
    if bits.u(1):
        bits.u(65)
    hrd = [bits.u(1)]
    if hrd[0]:
        bits.skip_hrd()
    hrd.append(bits.u(1))
    if hrd[1]:
        bits.skip_hrd()
    if any(hrd):
        bits.u(1)
    bits.u(1)
    if bits.u(1) == 0:
        raise ValueError("the set states no bound already")
    kept = bits.bits[: bits.at - 1] + "0" + "1"
    kept += "0" * (-len(kept) % 8)
    body, zeros = bytearray(), 0
    for byte in (int(kept[n : n + 8], 2) for n in range(0, len(kept), 8)):
        if zeros == 2 and byte <= 3:
            body.append(3)
            zeros = 0
        body.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return sps[:1] + bytes(body)


def stream_without_bound(stream):
    """The same for every such set of a byte stream."""
    out, at = bytearray(), 0
    while True:
        found = stream.find(b"\0\0\1", at)
        if found < 0:
            return bytes(out + stream[at:])
        begin = found + 3
        out += stream[at:begin]
        at = begin
        if stream[begin] & 31 == 7:
            # zeros before the next start code belong to that
            end = stream.find(b"\0\0\1", begin)
            sps = stream[begin : end if end >= 0 else len(stream)].rstrip(b"\0")
            out += without_bound(sps)
            at = begin + len(sps)
