"""Makes golden.json: random boxes and what pycocotools says of them.

pip install numpy pycocotools && python3 golden.py > golden.json
"""
import contextlib, io, json, random
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

random.seed(5)


def box():
    x, y = random.randrange(0, 2000) / 4, random.randrange(0, 1200) / 4
    return [x, y, x + random.randrange(40, 600) / 4, y + random.randrange(40, 600) / 4]


def moved(b, by):
    return [v + random.randrange(-by, by + 1) / 4 for v in b]


def case(frames, classes, by):
    out = []
    for _ in range(frames):
        truth = [(random.randrange(classes), box(), random.random() < 0.15) for _ in range(random.randrange(0, 9))]
        found = []
        for c, b, _ in truth:
            for _ in range(random.choice([0, 1, 1, 1, 2])):
                found.append((c if random.random() < 0.93 else random.randrange(classes), moved(b, by)))
        found += [(random.randrange(classes), box()) for _ in range(random.randrange(0, 4))]
        found = [(c, b, random.randrange(256, 1024) / 1024) for c, b in found if b[2] > b[0] and b[3] > b[1]]
        out.append({"truth": truth, "found": found})
    return out


def judged(frames, classes):
    xywh = lambda b: [b[0], b[1], b[2] - b[0], b[3] - b[1]]
    area = lambda b: (b[2] - b[0]) * (b[3] - b[1])
    images = [{"id": i + 1} for i in range(len(frames))]
    truths = [dict(image_id=i + 1, category_id=c + 1, bbox=xywh(b), area=area(b), iscrowd=0, skip=s)
              for i, f in enumerate(frames) for c, b, s in f["truth"]]
    for i, t in enumerate(truths):
        t["id"] = i + 1
    found = [dict(image_id=i + 1, category_id=c + 1, bbox=xywh(b), score=s)
             for i, f in enumerate(frames) for c, b, s in f["found"]]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(images=images, annotations=truths, categories=[{"id": c + 1} for c in range(classes)], info={})
        coco.createIndex()
        e = COCOeval(coco, coco.loadRes(found), "bbox")
        # 'ignore' is set from iscrowd; set it from ours instead
        prepare = e._prepare

        def with_skips():
            prepare()
            for gts in e._gts.values():
                for g in gts:
                    g["ignore"] = int(g["skip"])

        e._prepare = with_skips
        e.evaluate(); e.accumulate(); e.summarize()
    return e.stats[1], e.stats[0]


cases = []
for frames, classes, by in [(30, 3, 8), (60, 2, 40), (12, 5, 20), (1, 1, 4)]:
    f = case(frames, classes, by)
    m50, m = judged(f, classes)
    cases.append({"frames": f, "map_50": m50, "map_50_95": m})
print(json.dumps(cases))
