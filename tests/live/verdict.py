"""What became of each picture: numbers that were sent against numbers that arrived.

Everything here works on plain data, so that test_verdict.py can plant a fault of each kind and see that it is found.
"""

import bisect
from collections import Counter

# counters of pictures that a decoder leaves out on purpose: no loss, and not shown
LEFT_OUT = ("over_target_fps", "not_shown", "frame_unread", "camera_stopped")
# pictures of one camera that a decoder may hold for their order while nothing comes
MOST_HELD = 4
# how long a picture may be on its way when its connection is cut, and still count as cut off with it
FLIGHT_NS = 500_000_000
# a picture's arrival is stamped so soon after its last packet has left this machine; the Unix clock may be slewed by so much
ARRIVAL_MS, CLOCK_MS = 20, 3
# sender reports say when a picture is sent: that is later than its making by the encoder's delay, B-frames included
SENDER_MS = 150
# a camera that sends nothing for so long has stalled
STALL_MS = 3000


def quantiles_ms(values_ns):
    """p50, p95, p99 and the largest, in milliseconds; empty where there are no values."""
    if not values_ns:
        return {}
    ordered = sorted(values_ns)
    least = round(ordered[0] / 1e6, 2)
    at = lambda q: ordered[min(len(ordered) - 1, int(q * len(ordered)))] / 1e6  # noqa: E731
    return {"min": least, "p50": round(at(0.5), 2), "p95": round(at(0.95), 2), "p99": round(at(0.99), 2), "max": round(ordered[-1] / 1e6, 2)}


def runs_of(keys):
    """Consecutive (life, frame) together: [first, last, count]."""
    runs = []
    for key in sorted(keys):
        if runs and runs[-1][1][0] == key[0] and runs[-1][1][1] + 1 == key[1]:
            runs[-1][1] = key
            runs[-1][2] += 1
        else:
            runs.append([key, key, 1])
    return runs


def connection_of(connections, life, ns):
    """The number of the connection that a picture was sent in; None where there was none.

    A server encodes the first pictures before the client says PLAY, so these go to the connection that follows.
    """
    mine = [(n, c) for n, c in enumerate(connections) if c[0] == life]
    before = [(n, c) for n, c in mine if c[1] <= ns]
    after = [(n, c) for n, c in mine if ns < c[1] <= ns + FLIGHT_NS]
    if after and (not before or (before[-1][1][2] or ns) < ns):
        return after[0][0]
    return before[-1][0] if before else None


def missing_where(history, delivered, outages, end_ns=None):
    """What did not arrive, by where it is in its connection.

    before_join: before the first picture of the connection that arrived (a decoder begins at a key picture)
    at_cut: behind the last one, sent within half a second before the connection ended, or before all cameras were stopped
    at the end of the run
    outage: sent while a process of the graph was killed, stopped or on its way back
    inside: everything else
    """
    where = {"before_join": [], "at_cut": [], "outage": [], "inside": []}
    by_connection = {}
    for key, ns in history.sent.items():
        by_connection.setdefault(connection_of(history.connections, key[0], ns), []).append((key, ns))
    for number, pictures in by_connection.items():
        arrived = sorted(key for key, _ in pictures if key in delivered)
        ended = history.connections[number][2] if number is not None else None
        if end_ns is not None:
            ended = min(ended or end_ns, end_ns)
        for key, ns in pictures:
            if key in delivered:
                continue
            if any(begin <= ns <= end for begin, end in outages):
                where["outage"].append(key)
            elif ended is not None and (not arrived or key > arrived[-1]) and ns >= ended - FLIGHT_NS:
                where["at_cut"].append(key)
            elif not arrived or key < arrived[0]:
                where["before_join"].append(key)
            else:
                where["inside"].append(key)
    return where


def unaccounted(received, delivered, drops):
    """Pictures that were received and are neither delivered nor named. While the graph runs these are on their way."""
    return received - delivered - sum(drops.values())


def due_ns(key, sent, sent_ns):
    """When a picture can be shown at the latest: with B-frames a decoder may need the next ones to know its place. A camera
    that pauses keeps it waiting; behind a stall it is not to be shown any more."""
    at = bisect.bisect_right(sent_ns, sent[key])
    following = sent_ns[at : at + MOST_HELD]
    return max([sent[key], *(ns for ns in following if ns - sent[key] < STALL_MS * 1e6)])


def judge(camera_number, history, seen, drops, received=None, outages=(), stale_ms=1000, unix_offset_ns=None, killed=False, end_ns=None, unread=False):
    """One camera: `seen` are its messages in the order of their arrival, `drops` the pictures that nodes counted as lost of
    it (or left out on purpose), by cause, and `received` those of which its decoder got a packet.

    `outages` are the times in which a process was killed or stopped; `killed` when one of them was killed; `unread` when
    one that received the camera was killed or stopped, so that what was sent to it meanwhile may never have been read.
    `end_ns` is when all cameras were stopped. `unix_offset_ns` is what the Unix clock is ahead of the monotonic one: with it the times in the messages are judged.
    """
    delivered, repeated, backwards, mixed, unreadable, strangers = {}, [], [], [], [], []
    last = None
    ages, ages_from_sent = [], []
    stale, sent_ns = [], sorted(history.sent.values())
    for message in seen:
        stamp = message.stamp
        if stamp is None:
            unreadable.append((message.seq, message.error))
            continue
        if stamp.camera != camera_number:
            mixed.append((message.seq, stamp.camera))
            continue
        key = (stamp.life, stamp.frame)
        if key not in history.made:
            strangers.append(key)
            continue
        if history.made[key] // 1_000_000 & 0xFFFF != stamp.ms:
            strangers.append(key)
            continue
        if key in delivered:
            repeated.append(key)
            continue
        if last is not None and key < last:
            backwards.append(key)
        last = max(key, last) if last else key
        delivered[key] = message.ns
        ages.append(message.ns - history.made[key])
        if key in history.sent:
            age = message.ns - history.sent[key]
            ages_from_sent.append(age)
            if message.ns - due_ns(key, history.sent, sent_ns) > stale_ms * 1e6:
                stale.append((key, round(age / 1e6)))
    arrivals, senders = [], []
    for message in seen if unix_offset_ns is not None else ():
        key = (message.stamp.life, message.stamp.frame) if message.stamp else None
        if key in history.sent:
            arrivals.append(message.capture_ns - unix_offset_ns - history.sent[key])
            if message.sender_ns is not None:
                senders.append(message.sender_ns - unix_offset_ns - history.made[key])
    where = missing_where(history, delivered, outages, end_ns)
    named = Counter()
    for cause, count in drops.items():
        named[cause] += count
    pictures_named = sum(named.values())
    missing = {name: len(keys) for name, keys in where.items()}
    missing["all"] = sum(missing.values())
    times = sorted(delivered.values())
    result = {
        "made": len(history.made),
        "sent": len(history.sent),
        "received": received,
        "delivered": len(delivered),
        "missing": missing,
        "missing_runs": {name: [[list(a), list(b), n] for a, b, n in runs_of(keys)] for name, keys in where.items() if keys},
        "named_losses": dict(named),
        "hurt_by_loss": len(history.hurt),
        "vanished_by_loss": len(history.vanished),
        "repeated": len(repeated),
        "backwards": len(backwards),
        "mixed": len(mixed),
        "unreadable": len(unreadable),
        "strangers": len(strangers),
        "stale": stale[:20],
        "examples": {"unreadable": unreadable[:3], "mixed": mixed[:3], "strangers": strangers[:3], "repeated": repeated[:3], "backwards": backwards[:3]},
        "arrival_after_sent_ms": quantiles_ms(arrivals),
        "sender_after_made_ms": quantiles_ms(senders),
        "age_from_made_ms": quantiles_ms(ages),
        "age_from_sent_ms": quantiles_ms(ages_from_sent),
        "largest_gap_ms": round(max((b - a for a, b in zip(times, times[1:])), default=0) / 1e6, 1),
        "connections": len(history.connections),
    }
    problems = []
    for name in ("repeated", "backwards", "mixed", "unreadable", "strangers"):
        if result[name]:
            problems.append(f"{result[name]} pictures {name}: {result['examples'].get(name)}")
    if stale:
        problems.append(f"{len(stale)} pictures older than {stale_ms} ms: {stale[:3]}")
    early = result["arrival_after_sent_ms"].get("min", 0)
    if early < -CLOCK_MS or result["arrival_after_sent_ms"].get("p50", 0) > ARRIVAL_MS:
        problems.append(f"capture_ns is not when pictures arrived: {result['arrival_after_sent_ms']} ms after they were sent")
    if result["sender_after_made_ms"] and abs(result["sender_after_made_ms"]["p50"]) > SENDER_MS:
        problems.append(f"sender_ns is not when pictures were made: {result['sender_after_made_ms']} ms after it")
    if not delivered:
        problems.append("nothing was delivered")
    # what is missing has to have a name; what was cut off with its connection may never have arrived, and what a process that
    # was killed had counted since its last report is gone with it
    unnamed = missing["all"] - missing["at_cut"] - (missing["outage"] if killed or unread else 0) - pictures_named
    result["missing_without_a_name"] = max(0, unnamed)
    if unnamed > 0:
        problems.append(f"{unnamed} pictures are missing without a name: {missing}, named {dict(named)}")
    # a loss that is counted and did not happen is as wrong
    beyond = pictures_named - missing["all"]
    result["named_without_a_loss"] = max(0, beyond)
    if beyond > 0:
        problems.append(f"{beyond} losses are counted that did not happen: {missing}, named {dict(named)}")
    if received is not None:
        result["unaccounted"] = unaccounted(received, len(delivered), named)
        if not killed and result["unaccounted"] != 0:
            problems.append(f"received {received}, delivered {len(delivered)}, named losses {pictures_named}: {result['unaccounted']} unaccounted for")
    result["problems"] = problems
    return result


def largest_gap_ms(seen, history, begin_ns, end_ns):
    """The longest time between two messages of one camera that touches the span, less what the camera itself was late by."""
    messages = [m for m in seen if m.stamp is not None]
    sent = lambda m: history.sent.get((m.stamp.life, m.stamp.frame))  # noqa: E731
    steps = [b - a for a, b in zip(*[sorted(history.sent.values())[k:] for k in (0, 1)])]
    usual = sorted(steps)[len(steps) // 2] if steps else 0
    worst = 0
    for a, b in zip(messages, messages[1:]):
        if b.ns >= begin_ns and a.ns <= end_ns:
            late = max(0, sent(b) - sent(a) - (b.stamp.frame - a.stamp.frame) * usual) if sent(a) and sent(b) and a.stamp.life == b.stamp.life else 0
            worst = max(worst, b.ns - a.ns - late)
    if messages and messages[-1].ns < end_ns:
        worst = max(worst, end_ns - messages[-1].ns)
    return round(worst / 1e6, 1)


def healed_ms(history, seen, cure_ns):
    """From the cure to the first message with a picture that was made after it."""
    for message in seen:
        if message.ns >= cure_ns and message.stamp is not None:
            made = history.made.get((message.stamp.life, message.stamp.frame))
            if made is not None and made >= cure_ns:
                return round((message.ns - cure_ns) / 1e6, 1)
    return None


def shown_from_before_ms(history, seen, fault_ns, cure_ns):
    """Pictures that were sent before an outage and shown after its end, with their age."""
    late = []
    for message in seen:
        if message.ns > cure_ns and message.stamp is not None:
            sent = history.sent.get((message.stamp.life, message.stamp.frame))
            if sent is not None and sent < fault_ns:
                late.append(round((message.ns - sent) / 1e6))
    return late


def path_to(nodes, ends):
    """The nodes between the sources and these ones, which are among them."""
    upstream = {n["id"]: {str(source).partition("/")[0] for source in n["inputs"].values()} for n in nodes}
    found, todo = set(), list(ends)
    while todo:
        node = todo.pop()
        if node in upstream and node not in found:
            found.add(node)
            todo += upstream[node]
    return found


def hops(nodes, reports, cameras):
    """What each node published of a camera against what each of its readers took in or counted as lost.

    `nodes` are the graph's, `reports` the last status report of each process. Where a node's own output is made of its
    input frame by frame, the two are held against each other too. Returns rows, and what does not add up.
    """
    counters, drops, nameless = Counter(), Counter(), Counter()
    for report in reports:
        for c in report["counters"]:
            counters[report["node"], c["name"], c["port"], c["source"]] += c["value"]
        for d in report["drops"]:
            drops[report["node"], d["port"], d["source"]] += d["value"]
            if not d["source"]:
                nameless[report["node"], d["cause"]] += d["value"]
    rows, problems = [], []
    outputs = {node["id"]: node.get("outputs", []) for node in nodes}
    for node in nodes:
        ports = {}
        for name, source in node["inputs"].items():
            upstream, _, output = str(source).partition("/")
            if upstream in outputs:
                ports.setdefault(name.split(".")[0], []).append((upstream, output))
        for port, upstreams in ports.items():
            for camera in cameras:
                published = sum(counters[up, "out", output, camera] for up, output in upstreams)
                taken, lost = counters[node["id"], "in", port, camera], drops[node["id"], port, camera]
                rows.append({"node": node["id"], "port": port, "camera": camera, "published": published, "taken": taken, "lost": lost})
                if published != taken + lost:
                    problems.append(f"{camera}: {published} were published for {node['id']}/{port}, which took {taken} and counted {lost} as lost")
        if len(ports) == 1 and len(outputs[node["id"]]) == 1:
            [port], [output] = ports, outputs[node["id"]]
            for camera in cameras:
                taken, out = counters[node["id"], "in", port, camera], counters[node["id"], "out", output, camera]
                lost = drops[node["id"], "", camera] + drops[node["id"], output, camera]
                if taken != out + lost:
                    problems.append(f"{camera}: {node['id']} took {taken}, published {out} and counted {lost} as lost")
    problems += [f"{count} losses of {node} by '{cause}' name no camera" for (node, cause), count in nameless.items()]
    return rows, problems
