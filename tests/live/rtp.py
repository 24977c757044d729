"""RTP payloads of H.264 (RFC 6184) and H.265 (RFC 7798)."""

PAYLOAD_BYTES = 1400


def nal_units(data):
    """The NAL units of an access unit in Annex B (H.264 annex B, H.265 annex B), without start codes."""
    return [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")[1:]]


def payloads(unit, codec):
    """The RTP payloads of one NAL unit: itself, or fragments (RFC 6184 5.8, RFC 7798 4.4.3)."""
    if len(unit) <= PAYLOAD_BYTES:
        return [unit]
    if codec == "h264":
        head, kind, body = bytes([unit[0] & 0xE0 | 28]), unit[0] & 31, unit[1:]
    else:
        head, kind, body = bytes([unit[0] & 0x81 | 49 << 1, unit[1]]), unit[0] >> 1 & 63, unit[2:]
    parts = [body[at : at + PAYLOAD_BYTES] for at in range(0, len(body), PAYLOAD_BYTES)]
    return [head + bytes([(n == 0) << 7 | (n == len(parts) - 1) << 6 | kind]) + part for n, part in enumerate(parts)]


def shows(payload, codec):
    """Whether a payload has a slice or a delimiter (RFC 6184 5.2, RFC 7798 4.4): who gets it knows that there is a picture.
    Its first three bytes are enough."""
    first, second, third = (payload[:3] + bytes(3))[:3]
    if codec == "h265":
        nal_type = first >> 1 & 63
        return (third & 63 if nal_type == 49 else nal_type) in (*range(32), 35, 48)
    nal_type = first & 31
    return (second & 31 if nal_type == 28 else nal_type) in (1, 2, 3, 4, 5, 9, 24)
