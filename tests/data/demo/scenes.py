#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the demo scenes: a small street from day to night, with exact ground truth.

Everything here is drawn by this script; there is no photograph and no third-party asset. `World` holds a seeded
scene and moves its actors (traffic that stops at the crossing, people, bicycles with a rider). `Renderer` turns one
moment into RGB and into truth boxes. `encode` writes H.264. The training script imports the same code with other seeds.

Truth boxes are FULL boxes: the tight bounds of the whole drawn object, hidden parts included, clipped to the frame.
`visible` is the share of the object's silhouette that no nearer thing covers, times the share of its box that lies
inside the frame. `ignore` is set where visible < 0.25, or the clipped box is narrower than 9 or lower than 18 pixels.
Coordinates are edges in pixels of the 960x540 frame: a box over the leftmost pixel column has x1 = 0, x2 = 1.

    python3 scenes.py --out .                       # clip.mp4 and truth.jsonl, as shipped
    python3 scenes.py --out /tmp/x --truth-only     # the truth alone; byte-identical to the shipped file
    python3 scenes.py --out /tmp/x --png 0,10,20,29 # stills
"""
import argparse
import json
import math
import os
import random

import cv2
import numpy as np

WIDTH, HEIGHT, FPS = 960, 540, 25
SS = 2  # drawing happens at SS times the frame size and is averaged down
LABELS = ["person", "car", "bicycle"]
PERSON, CAR, BICYCLE = 0, 1, 2
SHIPPED_SEED = 7
SHIPPED_SECONDS = 30
MIN_VISIBLE = 0.25
STATIC_ID = 255

# --- Light over the day: 0 = noon, 1 = late afternoon, 2 = dusk, 3 = night. ---------------------------------------
AMBIENT = [(1.00, 1.00, 1.00), (1.02, 0.90, 0.76), (0.66, 0.54, 0.64), (0.33, 0.36, 0.54)]
SKY_TOP = [(96, 174, 230), (104, 140, 205), (52, 54, 118), (12, 17, 46)]
SKY_LOW = [(214, 238, 247), (255, 208, 142), (246, 132, 112), (48, 58, 108)]
LAMPS = [0.0, 0.0, 0.75, 1.0]
NOISE = [0.9, 1.1, 1.8, 2.4]


def at_hour(table, hour):
    hour = min(max(hour, 0.0), len(table) - 1.0)
    i = min(int(hour), len(table) - 2)
    f = hour - i
    a, b = np.atleast_1d(np.float64(table[i])), np.atleast_1d(np.float64(table[i + 1]))
    return a + (b - a) * f


def shipped_hour(t):
    """Hour of the shipped clip: day until 7 s, night from 22 s."""
    return 3.0 * min(max((t - 7.0) / 15.0, 0.0), 1.0)


# --- Small geometry helpers -----------------------------------------------------------------------------------------
def arr(points):
    return np.asarray(points, dtype=np.float64)


def disc(cx, cy, r, ry=None, n=20):
    a = np.linspace(0, 2 * math.pi, n, endpoint=False)
    return np.stack([cx + r * np.cos(a), cy + (r if ry is None else ry) * np.sin(a)], 1)


def capsule(p, q, r0, r1=None, n=6):
    """A limb: two half discs of radius r0 at p and r1 at q, joined."""
    r1 = r0 if r1 is None else r1
    ang = math.atan2(q[1] - p[1], q[0] - p[0])
    a = np.linspace(ang + math.pi / 2, ang + 3 * math.pi / 2, n)
    b = np.linspace(ang - math.pi / 2, ang + math.pi / 2, n)
    return np.concatenate([np.stack([p[0] + r0 * np.cos(a), p[1] + r0 * np.sin(a)], 1),
                           np.stack([q[0] + r1 * np.cos(b), q[1] + r1 * np.sin(b)], 1)])


def rounded(points, passes=2, keep=0.25):
    """Corner cutting: each pass replaces a corner by two points."""
    p = arr(points)
    for _ in range(passes):
        q = np.roll(p, -1, 0)
        p = np.stack([p + (q - p) * keep, q + (p - q) * keep], 1).reshape(-1, 2)
    return p


def rect(x1, y1, x2, y2):
    return arr([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def joint(a, b, l1, l2, bend):
    """The knee (or elbow) between a and b for two bones of length l1 and l2."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    d = min(max(math.hypot(dx, dy), 1e-6), (l1 + l2) * 0.999)
    along = (l1 * l1 - l2 * l2 + d * d) / (2 * d)
    off = math.sqrt(max(l1 * l1 - along * along, 0.0)) * bend
    ux, uy = dx / d, dy / d
    return (a[0] + ux * along - uy * off, a[1] + uy * along + ux * off)


def shade(colour, f):
    return tuple(min(255.0, max(0.0, c * f)) for c in colour)


def mix(a, b, f):
    return tuple(x + (y - x) * f for x, y in zip(a, b))


def pick(rng, items):
    return items[int(rng.random() * len(items)) % len(items)]


class Painter:
    """Fills shapes into the RGB canvas and, with an id, into the id mask; keeps the bounds of what it drew."""

    def __init__(self, canvas, ids=None, cover=None, glows=()):
        self.canvas, self.ids, self.cover, self.glows = canvas, ids, cover, glows
        self.begin(0)

    def begin(self, ident, origin=(0.0, 0.0), scale=1.0, facing=1):
        self.ident, self.origin, self.scale, self.facing = ident, origin, scale, facing
        self.lo, self.hi = [1e9, 1e9], [-1e9, -1e9]

    def place(self, points):
        """Local units, y up, to frame pixels, y down. The identity for origin 0, scale 1 in `scenery`."""
        p = arr(points)
        return np.stack([self.origin[0] + self.facing * self.scale * p[:, 0], self.origin[1] - self.scale * p[:, 1]], 1)

    def _grow(self, p, r=0.0):
        lo, hi = p.min(0), p.max(0)
        self.lo = [min(self.lo[0], lo[0] - r), min(self.lo[1], lo[1] - r)]
        self.hi = [max(self.hi[0], hi[0] + r), max(self.hi[1], hi[1] + r)]

    def fill(self, points, colour, bounds=True):
        p = self.place(points)
        if bounds:
            self._grow(p)
        cv2.fillPoly(self.canvas, [np.rint((p * SS - 0.5) * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)
        if self.ident:
            cv2.fillPoly(self.ids, [np.rint((p - 0.5) * 16).astype(np.int32)], self.ident, cv2.LINE_8, 4)

    def stroke(self, points, width, colour, closed=False):
        p = self.place(points)
        w = width * self.scale
        self._grow(p, w / 2)
        cv2.polylines(self.canvas, [np.rint((p * SS - 0.5) * 16).astype(np.int32)], closed, colour,
                      max(1, round(w * SS)), cv2.LINE_AA, 4)
        if self.ident:
            cv2.polylines(self.ids, [np.rint((p - 0.5) * 16).astype(np.int32)], closed, self.ident,
                          max(1, round(w)), cv2.LINE_8, 4)

    def scenery(self, points, colour):
        """Frame pixels, no id, no bounds: for the background."""
        p = arr(points)
        q = [np.rint((p * SS - 0.5) * 16).astype(np.int32)]
        cv2.fillPoly(self.canvas, q, colour, cv2.LINE_AA, 4)
        if self.cover is not None:
            cv2.fillPoly(self.cover, q, 255, cv2.LINE_AA, 4)
        for lit in self.glows:  # what is in front of a lit window hides its glow
            cv2.fillPoly(lit, q, (0, 0, 0), cv2.LINE_AA, 4)


# --- Actors ---------------------------------------------------------------------------------------------------------
SKIN = [(250, 216, 190), (236, 188, 150), (206, 150, 110), (160, 106, 74), (112, 72, 52), (84, 54, 42)]
HAIR = [(40, 32, 30), (84, 54, 36), (140, 92, 48), (214, 176, 104), (170, 170, 172), (150, 62, 36), (230, 226, 220)]
CLOTH = [(231, 76, 60), (52, 120, 200), (46, 160, 110), (245, 190, 65), (142, 84, 173), (236, 240, 241), (44, 62, 90),
         (230, 126, 80), (26, 188, 176), (240, 130, 160), (96, 110, 120), (120, 144, 72), (60, 60, 66), (250, 220, 180)]
TROUSER = [(44, 62, 90), (60, 60, 66), (92, 72, 58), (86, 108, 140), (140, 128, 108), (36, 40, 48), (120, 60, 64),
           (200, 190, 170)]
PAINT = [(214, 64, 56), (38, 98, 170), (240, 240, 238), (40, 44, 52), (246, 186, 48), (42, 140, 128), (150, 158, 166),
         (92, 130, 70), (238, 120, 64), (120, 70, 130), (110, 176, 214), (196, 170, 134), (96, 30, 44)]


class Person:
    kind = PERSON

    def __init__(self, rng, ident, x, y, path=(), speed=1.3):
        self.ident, self.x, self.y = ident, x, y
        self.path, self.speed = list(path), speed  # path: (x, y, may_go) where may_go(t) is asked before that leg
        self.v = (0.0, 0.0)
        self.phase = rng.random() * 6.28
        self.facing = 1
        self.tall = 0.84 + 0.26 * rng.random()
        if rng.random() < 0.10:
            self.tall = 0.62 + 0.14 * rng.random()  # a child
        self.wide = 0.88 + 0.34 * rng.random()
        self.skin, self.hair = pick(rng, SKIN), pick(rng, HAIR)
        self.top, self.legs = pick(rng, CLOTH), pick(rng, TROUSER)
        self.shoe = pick(rng, [(50, 44, 42), (236, 236, 232), (120, 78, 50), (190, 60, 60)])
        self.style = pick(rng, ["plain", "plain", "coat", "dress", "hood", "shorts"])
        self.hat = pick(rng, [None, None, None, "cap", "beanie", "brim"])
        self.long_hair = rng.random() < 0.4
        self.bag = pick(rng, [None, None, "pack", "tote", "case"])
        self.bag_colour = pick(rng, CLOTH)
        self.hat_colour = pick(rng, CLOTH)

    def step(self, world, dt):
        self.v = (0.0, 0.0)
        if not self.path:
            return
        gx, gy, may_go = self.path[0]
        if may_go is not None and not may_go(world.t):
            return
        if may_go is not None:
            self.path[0] = (gx, gy, None)
        px = self.speed * world.ppm(self.y)  # pixels per second along x
        dx, dy = gx - self.x, (gy - self.y) * 2.6  # one pixel of depth is longer than one pixel of width
        d = math.hypot(dx, dy)
        if d <= px * dt:
            self.x, self.y = gx, gy
            self.path.pop(0)
            return
        self.v = (dx / d * px, dy / d * px / 2.6)
        self.x += self.v[0] * dt
        self.y += self.v[1] * dt
        self.phase += dt * self.speed * 4.6 / self.tall
        if abs(dx) > 1:
            self.facing = 1 if dx > 0 else -1

    def gone(self):
        return not self.path and not -80 < self.x < WIDTH + 80

    def draw(self, p, world, lights):
        h = world.person_px(self.y) * self.tall
        p.begin(p.ident, (self.x, self.y), h, self.facing)
        moving = self.v != (0.0, 0.0)
        side = moving and abs(self.v[0]) > abs(self.v[1]) * 1.3
        swing = math.sin(self.phase) if moving else 0.0
        bob = 0.012 * abs(math.cos(self.phase)) if moving else 0.0
        w = self.wide * (0.92 if self.tall > 0.8 else 1.12)
        hip, shoulder = 0.48 + bob, 0.80 + bob
        head_y, head_r = 0.905 + bob, 0.073 if self.tall > 0.8 else 0.088
        legs, far_legs, far_top = self.legs, shade(self.legs, 0.78), shade(self.top, 0.78)
        if self.style == "shorts" or self.style == "dress":
            shin, far_shin = self.skin, shade(self.skin, 0.82)
        else:
            shin, far_shin = legs, far_legs
        if side:
            feet = [(0.17 * swing, 0.035 + 0.03 * max(0.0, math.cos(self.phase))),
                    (-0.17 * swing, 0.035 + 0.03 * max(0.0, -math.cos(self.phase)))]
            hips = [(0.0, hip), (0.0, hip)]
        else:
            lift = 0.05 * swing
            feet = [(0.052 * w, 0.03 + max(0.0, lift)), (-0.052 * w, 0.03 + max(0.0, -lift))]
            hips = [(0.045 * w, hip), (-0.045 * w, hip)]
        hand = [(-0.15 * swing + 0.02, 0.47 + 0.05 * abs(swing)), (0.15 * swing + 0.02, 0.47 + 0.05 * abs(swing))]
        if not side:
            hand = [(0.135 * w, 0.46 + 0.03 * swing), (-0.135 * w, 0.46 - 0.03 * swing)]
        back = not side and self.v[1] < 0

        def leg(i, upper, lower):
            knee = joint(hips[i], feet[i], 0.235, 0.235, 1 if side else 0.25)
            p.fill(capsule(knee, feet[i], 0.036 * w, 0.028 * w), lower)
            p.fill(capsule(hips[i], knee, 0.052 * w, 0.040 * w), upper)
            fx, fy = feet[i]
            toe = (fx + 0.065, fy - 0.008) if side else (fx, fy - 0.008)
            p.fill(capsule((fx, fy - 0.005), toe, 0.027), self.shoe)

        def arm(i, colour):
            s = (0.0, shoulder - 0.02) if side else ((0.10 * w, shoulder - 0.02) if i == 0 else (-0.10 * w, shoulder - 0.02))
            elbow = joint(s, hand[i], 0.18, 0.18, -1 if side else (-0.2 if i == 0 else 0.2))
            p.fill(disc(hand[i][0], hand[i][1] - 0.01, 0.026, n=10), self.skin)
            p.fill(capsule(s, elbow, 0.036 * w, 0.031 * w), colour)
            p.fill(capsule(elbow, hand[i], 0.031 * w, 0.026 * w), colour)

        arm(1, far_top)
        leg(1, far_legs, far_shin)
        if self.bag == "pack" and (side or not back):
            if side:
                p.fill(rounded(rect(-0.20, 0.55 + bob, -0.05, 0.80 + bob)), self.bag_colour)
        if self.long_hair:
            hb = -0.03 if side else 0.0
            p.fill(rounded(rect(hb - 0.085, head_y - 0.13, hb + (0.04 if side else 0.085), head_y + 0.05)), self.hair)
        leg(0, legs, shin)
        tw = 0.082 * w if side else 0.115 * w
        if self.style == "coat":
            p.fill(rounded([(-tw, shoulder + 0.02), (tw, shoulder + 0.02), (tw * 1.25, 0.30), (-tw * 1.25, 0.30)]), self.top)
        elif self.style == "dress":
            p.fill(rounded([(-tw * 0.9, shoulder + 0.02), (tw * 0.9, shoulder + 0.02), (tw * 0.8, 0.6), (tw * 1.7, 0.27),
                            (-tw * 1.7, 0.27), (-tw * 0.8, 0.6)], 2, 0.2), self.top)
        else:
            p.fill(rounded([(-tw, shoulder + 0.03), (tw, shoulder + 0.03), (tw * 0.95, hip - 0.03), (-tw * 0.95, hip - 0.03)]), self.top)
        p.fill(capsule((0.0, shoulder), (0.008, head_y - 0.03), 0.028), shade(self.skin, 0.9))
        if self.style == "hood":
            p.fill(disc(-0.02 if side else 0, shoulder + 0.035, 0.075, 0.04), shade(self.top, 0.85))
        p.fill(disc(0.012 if side else 0.0, head_y, head_r * 0.96, head_r), self.hair if back else self.skin)
        if not back:
            if side:
                p.fill(rounded([(-0.075, head_y - 0.045), (-0.03, head_y - 0.03), (0.0, head_y + 0.015), (0.075, head_y + 0.035),
                                (0.05, head_y + 0.083), (-0.05, head_y + 0.083)]), self.hair)
            else:
                p.fill(rounded([(-0.082, head_y + 0.01), (0.0, head_y + 0.055), (0.082, head_y + 0.01), (0.055, head_y + 0.085),
                                (-0.055, head_y + 0.085)]), self.hair)
        if self.hat == "beanie":
            p.fill(rounded([(-0.084, head_y + 0.02), (0.084, head_y + 0.02), (0.07, head_y + 0.105), (-0.07, head_y + 0.105)]), self.hat_colour)
        elif self.hat == "cap":
            p.fill(rounded([(-0.08, head_y + 0.03), (0.08, head_y + 0.03), (0.06, head_y + 0.095), (-0.06, head_y + 0.095)]), self.hat_colour)
            if side:
                p.fill(capsule((0.05, head_y + 0.035), (0.125, head_y + 0.03), 0.012), self.hat_colour)
        elif self.hat == "brim":
            p.fill(disc(0.0, head_y + 0.04, 0.125, 0.022), self.hat_colour)
            p.fill(rounded([(-0.075, head_y + 0.04), (0.075, head_y + 0.04), (0.06, head_y + 0.12), (-0.06, head_y + 0.12)]), self.hat_colour)
        if self.bag == "pack" and back:
            p.fill(rounded(rect(-0.085 * w, 0.55 + bob, 0.085 * w, 0.79 + bob)), self.bag_colour)
        arm(0, shade(self.top, 1.07))
        if self.bag in ("tote", "case"):
            bx, by = hand[0][0], hand[0][1] - 0.03
            size = (0.055, 0.13) if self.bag == "tote" else (0.09, 0.11)
            p.fill(rounded(rect(bx - size[0], by - size[1], bx + size[0], by), 1, 0.12), self.bag_colour)


# Side views, rear at x = 0 and front at x = 1 of the length, 0..1 of the height; windows likewise.
BODIES = {
    "sedan": (4.5, 1.42, [(0, .2), (0, .58), (.03, .66), (.15, .69), (.29, .98), (.38, 1), (.54, 1), (.61, .97), (.75, .67), (.93, .6), (1, .5), (1, .2)],
              [[(.235, .69), (.315, .91), (.445, .92), (.445, .69)], [(.475, .69), (.475, .92), (.585, .91), (.695, .69)]]),
    "hatch": (3.9, 1.48, [(0, .2), (0, .6), (.04, .9), (.12, 1), (.5, 1), (.59, .97), (.75, .66), (.94, .57), (1, .46), (1, .2)],
              [[(.08, .67), (.11, .9), (.37, .92), (.37, .67)], [(.405, .67), (.405, .92), (.57, .91), (.69, .67)]]),
    "suv": (4.6, 1.74, [(0, .22), (0, .64), (.03, .92), (.09, 1), (.56, 1), (.64, .96), (.75, .68), (.95, .63), (1, .52), (1, .22)],
            [[(.06, .69), (.08, .91), (.2, .92), (.2, .69)], [(.225, .69), (.225, .92), (.41, .92), (.41, .69)],
             [(.44, .69), (.44, .92), (.61, .9), (.7, .69)]]),
    "van": (5.0, 2.1, [(0, .17), (0, .93), (.03, 1), (.66, 1), (.77, .94), (.9, .6), (.98, .52), (1, .42), (1, .17)],
            [[(.63, .62), (.63, .88), (.745, .88), (.85, .62)]]),
    "pickup": (5.1, 1.72, [(0, .26), (0, .62), (.37, .63), (.41, .96), (.45, 1), (.6, 1), (.67, .96), (.76, .68), (.96, .63), (1, .52), (1, .26)],
               [[(.43, .68), (.45, .92), (.535, .92), (.535, .68)], [(.56, .68), (.56, .92), (.635, .91), (.705, .68)]]),
    "coupe": (4.3, 1.24, [(0, .22), (0, .64), (.05, .72), (.14, .74), (.34, 1), (.44, 1), (.54, .97), (.72, .68), (.93, .56), (1, .44), (1, .22)],
              [[(.27, .72), (.36, .91), (.46, .92), (.53, .9), (.66, .7)]]),
    "mini": (3.2, 1.54, [(0, .2), (0, .66), (.08, .93), (.2, 1), (.58, 1), (.69, .95), (.84, .64), (.97, .55), (1, .44), (1, .2)],
             [[(.12, .66), (.19, .9), (.42, .92), (.42, .66)], [(.46, .66), (.46, .92), (.64, .9), (.76, .66)]]),
}


class Vehicle:
    """Shared by cars and bicycles: keeps to a lane, keeps its distance, stops at red."""

    def __init__(self, ident, lane, x, cruise):
        self.ident, self.lane, self.x, self.y = ident, lane, x, lane.y
        self.cruise, self.speed, self.travel = cruise, cruise, 0.0
        self.facing = lane.dir
        self.braking = False

    def step(self, world, dt):
        ppm = world.ppm(self.y)
        d = self.lane.dir
        gap = 1e9
        for other in self.lane.queue:
            if other is not self and (other.x - self.x) * d > 0:
                gap = min(gap, ((other.x - self.x) * d) / ppm - (other.length + self.length) / 2)
        lead = min([o.speed for o in self.lane.queue if o is not self and (o.x - self.x) * d > 0 and
                    ((o.x - self.x) * d) / ppm - (o.length + self.length) / 2 <= gap + 1e-9], default=self.speed)
        ahead = ((self.lane.stop - self.x) * d) / ppm - self.length / 2
        if not world.cars_go(world.t) and ahead > -0.3 and ahead > self.speed ** 2 / 9.0 - 1.0:
            if ahead < gap:
                gap, lead = max(ahead, 0.0) + 1.2, 0.0
        want = 1.6 + self.speed * 0.9 + self.speed * (self.speed - lead) / (2 * math.sqrt(1.8 * 2.6))
        a = 1.8 * (1 - (self.speed / self.cruise) ** 4 - (max(want, 0.2) / max(gap, 0.3)) ** 2)
        a = max(a, -6.5)
        self.braking = a < -0.7 or self.speed < 0.15
        self.speed = max(0.0, self.speed + a * dt)
        self.travel += self.speed * dt
        self.x += self.speed * dt * ppm * d

    def gone(self):
        return (self.x > WIDTH + 420) if self.lane.dir > 0 else (self.x < -420)


class Car(Vehicle):
    kind = CAR

    def __init__(self, rng, ident, lane, x):
        super().__init__(ident, lane, x, 4.6 + 2.2 * rng.random())
        self.body = pick(rng, ["sedan", "hatch", "suv", "van", "pickup", "coupe", "mini", "sedan", "hatch"])
        length, height, _, _ = BODIES[self.body]
        self.length = length * (0.94 + 0.14 * rng.random())
        self.height = height * (0.95 + 0.11 * rng.random())
        self.paint = mix(pick(rng, PAINT), pick(rng, PAINT), 0.15 * rng.random())
        self.taxi = self.body == "sedan" and rng.random() < 0.3
        if self.taxi:
            self.paint = (246, 196, 60)
        self.two_tone = rng.random() < 0.2
        self.rack = self.body in ("suv", "hatch", "mini") and rng.random() < 0.3
        self.rim = pick(rng, [(190, 194, 198), (110, 114, 120), (226, 226, 226)])

    def draw(self, p, world, lights):
        ppm = world.ppm(self.y)
        L, H = self.length, self.height
        p.begin(p.ident, (self.x - self.facing * L / 2 * ppm, self.y), ppm, self.facing)
        s = arr([L, H])
        _, _, body, windows = BODIES[self.body]
        r = 0.335 if self.body not in ("suv", "pickup", "van") else 0.375
        dark = (38, 40, 46)
        p.fill(rounded(arr([(.03, .12), (.03, .3), (.97, .3), (.97, .12)]) * s, 1, 0.15), dark)
        if self.rack:
            p.fill(rect(.15 * L, H, .5 * L, H + 0.05), dark)
            p.fill(rounded(rect(.17 * L, H + 0.04, .47 * L, H + 0.34), 2, 0.2), shade(self.paint, 0.55))
        if self.taxi:
            p.fill(rounded(rect(.4 * L, H - 0.02, .5 * L, H + 0.14), 1, 0.2), (250, 246, 220))
        p.fill(rounded(arr(body) * s, 2, 0.22), self.paint)
        if self.two_tone:
            p.fill(rounded(arr([(x, y) for x, y in body if y >= .66]) * s, 2, 0.22), (240, 240, 236))
        p.fill(rounded(arr([(.005, .2), (.005, .36), (.995, .36), (.995, .2)]) * s, 1, 0.1), shade(self.paint, 0.8))
        for w in windows:
            p.fill(rounded(arr(w) * s, 1, 0.12), (66, 84, 104))
            x0, y0 = arr(w).min(0)
            x1, y1 = arr(w).max(0)
            p.fill(arr([(x0 + (x1 - x0) * f, y0 + (y1 - y0) * g) for f, g in ((.42, .04), (.58, .04), (.78, .94), (.62, .94))]) * s, (112, 138, 160))
        p.fill(rect(.455 * L, .24 * H, .462 * L, .68 * H), shade(self.paint, 0.8))
        p.fill(rect(.36 * L, .585 * H, .42 * L, .605 * H), shade(self.paint, 0.6))
        for wx in (.185, .805):
            c = (wx * L, r)
            p.fill(disc(c[0], c[1] + 0.02, r * 1.22), shade(self.paint, 0.45))
            p.fill(disc(c[0], c[1], r), (34, 34, 38))
            p.fill(disc(c[0], c[1], r * 0.58, n=14), self.rim)
            spin = self.travel / r
            for k in range(5):
                a = -spin + k * 2 * math.pi / 5
                p.fill(capsule(c, (c[0] + r * .5 * math.cos(a), c[1] + r * .5 * math.sin(a)), 0.03, n=3), shade(self.rim, 0.62))
        p.fill(rounded(rect(.945 * L, .44 * H, .992 * L, .53 * H), 1), (255, 246, 214))
        p.fill(rounded(rect(.006 * L, .46 * H, .035 * L, .58 * H), 1), (226, 40, 36) if self.braking else (160, 34, 34))
        f = self.facing
        x0 = self.x - f * L / 2 * ppm
        lights.append(("head", x0 + f * .975 * L * ppm, self.y - .485 * H * ppm, 0.085 * ppm, f, ppm, self.y))
        lights.append(("brake" if self.braking else "tail", x0 + f * .02 * L * ppm, self.y - .52 * H * ppm, 0.08 * ppm, f, ppm, self.y))


class Bicycle(Vehicle):
    """A bicycle with its rider: one object, one box, class `bicycle`."""

    kind = BICYCLE
    length = 1.8

    def __init__(self, rng, ident, lane, x):
        super().__init__(ident, lane, x, 2.6 + 1.5 * rng.random())
        self.size = 0.92 + 0.18 * rng.random()
        self.skin, self.hair = pick(rng, SKIN), pick(rng, HAIR)
        self.top, self.legs, self.frame = pick(rng, CLOTH), pick(rng, TROUSER), pick(rng, PAINT)
        self.helmet = pick(rng, CLOTH) if rng.random() < 0.6 else None
        self.racer = rng.random() < 0.35
        self.extra = pick(rng, [None, None, "basket", "box", "pack"])
        self.extra_colour = pick(rng, CLOTH)

    def draw(self, p, world, lights):
        ppm = world.ppm(self.y) * self.size
        p.begin(p.ident, (self.x, self.y), ppm, self.facing)
        r = 0.335
        rear, front, crank = (-0.52, r), (0.53, r), (-0.06, 0.30)
        seat = (-0.22, 0.92 if self.racer else 0.88)
        bar = (0.36, 0.92) if self.racer else (0.33, 1.06)
        hip = (seat[0] + 0.02, seat[1] + 0.08)
        shoulder = (0.10, 1.36) if self.racer else (-0.06, 1.46)
        turn = self.travel / 0.9
        pedal = lambda a: (crank[0] + 0.17 * math.cos(a), crank[1] - 0.17 * math.sin(a))

        def leg(foot, colour):
            knee = joint(hip, foot, 0.46, 0.44, 1)
            p.fill(capsule(hip, knee, 0.085, 0.065), colour)
            p.fill(capsule(knee, foot, 0.06, 0.045), colour)
            p.fill(capsule(foot, (foot[0] + 0.13, foot[1] - 0.01), 0.04), (46, 42, 44))

        leg(pedal(turn + math.pi), shade(self.legs, 0.76))
        for c in (rear, front):
            p.stroke(disc(c[0], c[1], r - 0.028, n=28), 0.056, (40, 40, 44), True)
            for k in range(4):
                a = -self.travel / r + k * math.pi / 4
                dx, dy = (r - 0.05) * math.cos(a), (r - 0.05) * math.sin(a)
                p.stroke([(c[0] - dx, c[1] - dy), (c[0] + dx, c[1] + dy)], 0.012, (150, 152, 156))
        head = (0.38, 0.80)
        for a, b in ((rear, crank), (rear, seat), (crank, seat), (crank, head), ((-0.18, 0.74), head), (head, front), (head, bar)):
            p.fill(capsule(a, b, 0.026, n=3), self.frame)
        p.fill(disc(crank[0], crank[1], 0.085, n=14), (70, 72, 78))
        p.fill(capsule((seat[0] - 0.11, seat[1]), (seat[0] + 0.12, seat[1] + 0.01), 0.035), (44, 40, 40))
        p.fill(capsule(bar, (bar[0] + 0.08, bar[1] - (0.1 if self.racer else 0.0)), 0.024), (44, 40, 40))
        if self.extra == "basket":
            p.fill(rounded(rect(0.40, 0.80, 0.70, 1.02), 1, 0.12), (176, 130, 84))
        elif self.extra == "box":
            p.fill(rounded(rect(-0.80, 0.74, -0.36, 1.12), 1, 0.1), self.extra_colour)
        leg(pedal(turn), self.legs)
        p.fill(capsule(hip, shoulder, 0.115, 0.125), self.top)
        if self.extra == "pack":
            p.fill(capsule((hip[0] - 0.13, hip[1] + 0.18), (shoulder[0] - 0.18, shoulder[1]), 0.11), self.extra_colour)
        hd = (shoulder[0] + (0.14 if self.racer else 0.06), shoulder[1] + 0.23)
        p.fill(capsule(shoulder, hd, 0.05), shade(self.skin, 0.9))
        p.fill(disc(hd[0], hd[1], 0.112, 0.12), self.skin)
        if self.helmet:
            p.fill(rounded([(hd[0] - 0.15, hd[1] + 0.0), (hd[0] + 0.15, hd[1] + 0.05), (hd[0] + 0.10, hd[1] + 0.17), (hd[0] - 0.1, hd[1] + 0.17)]), self.helmet)
        else:
            p.fill(rounded([(hd[0] - 0.13, hd[1] - 0.06), (hd[0] - 0.03, hd[1] - 0.02), (hd[0] + 0.0, hd[1] + 0.03), (hd[0] + 0.12, hd[1] + 0.06),
                            (hd[0] + 0.08, hd[1] + 0.14), (hd[0] - 0.09, hd[1] + 0.14)]), self.hair)
        s = (shoulder[0] + 0.02, shoulder[1] - 0.02)
        elbow = joint(s, bar, 0.32, 0.3, -1)
        p.fill(disc(bar[0], bar[1] + 0.01, 0.048, n=10), self.skin)
        p.fill(capsule(s, elbow, 0.068, 0.055), shade(self.top, 0.9))
        p.fill(capsule(elbow, bar, 0.055, 0.042), shade(self.top, 0.9))
        f = self.facing
        lights.append(("lamp", self.x + f * 0.46 * ppm, self.y - 0.86 * ppm, 0.05 * ppm, f, ppm, self.y))
        lights.append(("tail", self.x - f * 0.46 * ppm, self.y - 0.74 * ppm, 0.04 * ppm, f, ppm, self.y))


class Lane:
    def __init__(self, y, direction, stop, make, every):
        self.y, self.dir, self.stop, self.make, self.every = y, direction, stop, make, every
        self.queue, self.next = [], 0.0


# --- The scene --------------------------------------------------------------------------------------------------------
class World:
    """A seeded street. Only Python's own Mersenne twister decides what happens, so a seed always gives the same boxes."""

    def __init__(self, seed, busy=1.0):
        self.rng = rng = random.Random(seed)
        self.seed = seed
        j = lambda a: (rng.random() * 2 - 1) * a
        calm = 0.35 if seed == SHIPPED_SEED else 1.0  # the shipped scene stays near the middle of the range
        self.horizon = 168 + j(26) * calm
        self.near = 0.365 + j(0.05) * calm  # person height in pixels per pixel below the horizon
        self.base = 300 + j(12) * calm      # foot of the houses
        self.road = (self.base + 36, self.base + 142)
        self.bikes = (self.base + 142, self.base + 168)
        self.cross = 640 + j(180) * calm
        self.cross_half = 44
        self.green, self.red = 11.0, 11.5
        self.offset = 4.5 if seed == SHIPPED_SEED else rng.random() * 22.5
        self.busy = busy
        self.ids = 0
        self.people, self.t = [], -24.0
        stop = (self.cross + self.cross_half + 16, self.cross - self.cross_half - 16)
        self.lanes = [Lane(self.base + 82, -1, stop[0], Car, 3.4), Lane(self.base + 132, 1, stop[1], Car, 3.4),
                      Lane(self.base + 152, -1, stop[0], Bicycle, 6.4), Lane(self.base + 166, 1, stop[1], Bicycle, 5.6)]
        for lane in self.lanes:
            lane.next = self.t + rng.random() * 3
        self.next_near, self.next_far = self.t, self.t
        self.crossings = set()
        for _ in range(1 + int(rng.random() * 3)):
            self.people.append(Person(rng, self.new_id(), 80 + rng.random() * 800, self.base + 14 + rng.random() * 8))
        for _ in range(int(rng.random() * 3)):
            self.people.append(Person(rng, self.new_id(), 80 + rng.random() * 800, self.base + 182 + rng.random() * 40))
        self.layout = random.Random(seed * 7919 + 1)
        while self.t < -1e-9:
            self.advance(1.0 / FPS)
        self.t = 0.0

    def new_id(self):
        self.ids += 1
        return self.ids

    def person_px(self, y):
        return self.near * (y - self.horizon)

    def ppm(self, y):
        return self.person_px(y) / 1.72

    def cars_go(self, t):
        return (t - self.offset) % (self.green + self.red) >= self.red

    def people_go(self, t):
        return 1.0 <= (t - self.offset) % (self.green + self.red) <= 4.6

    def objects(self):
        return self.people + [v for lane in self.lanes for v in lane.queue]

    def advance(self, dt):
        rng = self.rng
        self.t += dt
        for lane in self.lanes:
            if self.t >= lane.next:
                start = -330.0 if lane.dir > 0 else WIDTH + 330.0
                clear = all((v.x - start) * lane.dir > 9.0 * self.ppm(lane.y) for v in lane.queue)
                if clear:
                    lane.queue.append(lane.make(rng, self.new_id(), lane, start))
                    lane.next = self.t + lane.every * (0.35 + 1.3 * rng.random()) / self.busy
            for v in lane.queue:
                v.step(self, dt)
            lane.queue = [v for v in lane.queue if not v.gone()]
        if self.t >= self.next_near:
            self._walker(self.base + 178, self.base + 232)
            self.next_near = self.t + (1.7 + 3.6 * rng.random()) / self.busy
        if self.t >= self.next_far:
            self._walker(self.base + 8, self.base + 30)
            self.next_far = self.t + (2.6 + 5.4 * rng.random()) / self.busy
        cycle = math.floor((self.t - self.offset) / (self.green + self.red))
        if cycle not in self.crossings and (self.t - self.offset) % (self.green + self.red) > self.red + 0.1:
            self.crossings.add(cycle)
            for _ in range(2 + int(rng.random() * 3)):
                self._crosser(self.offset + (cycle + 1) * (self.green + self.red))
        for who in self.people:
            who.step(self, dt)
        self.people = [w for w in self.people if not w.gone()]

    def _walker(self, y0, y1):
        rng = self.rng
        y = y0 + (y1 - y0) * rng.random()
        right = rng.random() < 0.5
        speed = 1.0 + 0.7 * rng.random()
        a, b = (-70.0, WIDTH + 90.0) if right else (WIDTH + 70.0, -90.0)
        drift = (rng.random() - 0.5) * 16
        self.people.append(Person(rng, self.new_id(), a, y, [(b, min(max(y + drift, y0), y1), None)], speed))

    def _crosser(self, red_at):
        """Walks to the crossing, waits for the light, crosses, walks on."""
        rng = self.rng
        near = rng.random() < 0.5
        y_here = self.base + (176 + 10 * rng.random() if near else 22 + 8 * rng.random())
        y_there = self.base + (24 + 8 * rng.random() if near else 182 + 20 * rng.random())
        x = self.cross + (rng.random() * 2 - 1) * (self.cross_half - 14)
        right = rng.random() < 0.5
        speed = 1.35 + 0.3 * rng.random()
        need = (red_at - rng.random() * 5.0 - self.t) * speed * self.ppm(y_here)
        start = x - need if right else x + need
        out = WIDTH + 90.0 if rng.random() < 0.5 else -90.0
        who = Person(rng, self.new_id(), start, y_here,
                     [(x, y_here, None), (x + rng.random() * 8 - 4, y_there, self.people_go), (out, y_there + rng.random() * 6 - 3, None)], speed)
        if -60 < start < WIDTH + 60:  # do not let anybody appear out of nothing
            who.x = -70.0 if start < x else WIDTH + 70.0
        self.people.append(who)


FACADES = [(214, 120, 96), (232, 186, 128), (120, 150, 168), (196, 160, 140), (150, 176, 150), (226, 206, 176), (170, 110, 110),
           (110, 124, 150), (206, 150, 90), (180, 186, 196)]


class Renderer:
    """Draws a World. The unlit background is drawn once; each frame adds actors, light, lamps and noise."""

    def __init__(self, world):
        self.world = w = world
        rng = w.layout
        self.noise_rng = np.random.Generator(np.random.PCG64(w.seed + 1))
        self.canvas = np.zeros((HEIGHT * SS, WIDTH * SS, 3), np.uint8)
        cover = np.zeros((HEIGHT * SS, WIDTH * SS), np.uint8)
        self.windows = [np.zeros_like(self.canvas) for _ in range(3)]
        self.lamps, self.statics = [], []
        self._city(Painter(self.canvas, cover=cover, glows=self.windows), rng)
        self.background = self.canvas.copy()
        self.sky_rows = int(w.base) + 2
        alpha = cv2.resize(cover, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)[:self.sky_rows]
        self.sky_alpha = (255 - alpha.astype(np.float32))[..., None] / 255.0
        self.windows = [cv2.resize(x, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for x in self.windows]
        self._furniture(rng)
        self.pool = self._lamp_light()
        self.clouds = [(rng.random() * 1300 - 200, 24 + rng.random() * 84, 0.5 + rng.random() * 0.7, 3 + rng.random() * 5) for _ in range(5)]
        self.stars = [(rng.random() * WIDTH, rng.random() * 170, rng.random()) for _ in range(90)]

    # -- the background --
    def _window(self, p, rng, x1, y1, x2, y2, colour=(142, 178, 198), chance=0.5):
        p.scenery(rect(x1, y1, x2, y2), colour)
        p.scenery(arr([(x1, y2), (x1, y1 + (y2 - y1) * .45), (x2, y1), (x2, y1 + (y2 - y1) * .35)]), mix(colour, (255, 255, 255), 0.22))
        if rng.random() < chance:
            glow = pick(rng, [(255, 206, 120), (255, 190, 96), (255, 224, 160), (214, 226, 255)])
            g = int(rng.random() * 3) % 3
            cv2.fillPoly(self.windows[g], [np.rint((rect(x1, y1, x2, y2) * SS - 0.5) * 16).astype(np.int32)], shade(glow, 0.55), cv2.LINE_AA, 4)

    def _city(self, p, rng):
        w = self.world
        # far skyline, two layers of haze
        for low, high, tone in ((95, 175, (176, 200, 214)), (60, 130, (150, 176, 194))):
            x = -20.0
            while x < WIDTH:
                width, h = 34 + rng.random() * 60, low + rng.random() * (high - low)
                top = w.base - h
                p.scenery(rect(x, top, x + width, w.base), tone)
                if rng.random() < 0.3:
                    p.scenery(rect(x + width * .45, top - 16, x + width * .5, top), tone)
                for yy in np.arange(top + 8, w.base - 60, 12):
                    for xx in np.arange(x + 6, x + width - 8, 11):
                        if rng.random() < 0.32:
                            self._window(p, rng, xx, yy, xx + 4, yy + 5, shade(tone, 0.9), 0.35)
                x += width + rng.random() * 16
        # the row of houses
        x = -30.0 - rng.random() * 40
        mill = 1 + int(rng.random() * 3)
        n = 0
        self.wheel = None
        while x < WIDTH + 10:
            width = 120 + rng.random() * 80
            if rng.random() < 0.16 and n:
                self._park(p, rng, x, width * 0.8)
                x += width * 0.8
            else:
                self._house(p, rng, x, width, n == mill)
                x += width + (0 if rng.random() < 0.7 else 8)
            n += 1
        # ground, from the far pavement to the plaza
        b = w.base
        p.scenery(rect(0, b, WIDTH, w.road[0]), (200, 194, 186))
        for k in range(26):
            xx = k * 40 + 10
            p.scenery(arr([(xx, b), (xx + 1.2, b), (xx + (xx - 480) * .06 + 1.2, w.road[0] - 5), (xx + (xx - 480) * .06, w.road[0] - 5)]), (184, 178, 170))
        p.scenery(rect(0, b + 15, WIDTH, b + 16), (186, 180, 172))
        p.scenery(rect(0, w.road[0] - 5, WIDTH, w.road[0]), (158, 154, 150))
        p.scenery(rect(0, w.road[0], WIDTH, w.road[1]), (98, 102, 110))
        p.scenery(rect(0, w.road[0], WIDTH, w.road[0] + 3), (84, 88, 96))
        mid = b + 90
        xx = -10.0
        while xx < WIDTH:
            if abs(xx + 20 - w.cross) > w.cross_half + 34:
                p.scenery(rect(xx, mid, xx + 40, mid + 3), (228, 226, 214))
            xx += 68
        p.scenery(rect(0, w.bikes[0], WIDTH, w.bikes[1] + 4), (170, 98, 84))
        p.scenery(rect(0, w.bikes[0] - 1, WIDTH, w.bikes[0] + 2), (232, 230, 222))
        y, step = w.road[0] + 6.0, 7.5
        while y < w.bikes[1] - 4:
            grow = (y - w.horizon) / (b - w.horizon)
            p.scenery(rect(w.cross - w.cross_half * (.85 + .15 * grow), y, w.cross + w.cross_half * (.85 + .15 * grow), y + step), (236, 234, 226))
            y, step = y + step * 1.95, step * 1.09
        for lane in self.world.lanes[:2]:
            x0 = lane.stop + (4 if lane.dir < 0 else -9)
            top, low = (w.road[0], mid) if lane.dir < 0 else (mid + 3, w.road[1])
            p.scenery(arr([(x0, top + 2), (x0 + 6, top + 2), (x0 + 6, low - 2), (x0, low - 2)]), (228, 226, 214))
        p.scenery(rect(0, w.bikes[1] + 4, WIDTH, w.bikes[1] + 9), (168, 162, 156))
        p.scenery(rect(0, w.bikes[1] + 9, WIDTH, HEIGHT), (214, 206, 192))
        y, gap = w.bikes[1] + 26.0, 17.0
        while y < HEIGHT:
            p.scenery(rect(0, y, WIDTH, y + 1.2), (200, 191, 177))
            y, gap = y + gap, gap * 1.16
        for k in range(-8, 30):
            xx = k * 62
            p.scenery(arr([(xx, w.bikes[1] + 9), (xx + 1.4, w.bikes[1] + 9), (480 + (xx - 480) * 1.22 + 2, HEIGHT), (480 + (xx - 480) * 1.22, HEIGHT)]), (200, 191, 177))
        for k in range(28):
            y = b + 178 + rng.random() * (HEIGHT - b - 178)
            p.scenery(disc(rng.random() * WIDTH, y, 2 + rng.random() * 3, 1.2), (204, 195, 180))
        # the odd manhole and oil patch on the road
        for _ in range(3):
            p.scenery(disc(rng.random() * WIDTH, w.road[0] + 20 + rng.random() * 70, 13, 4.5), (86, 90, 98))

    def _park(self, p, rng, x, width):
        b = self.world.base
        p.scenery(rect(x, b - 26, x + width, b), (104, 150, 92))
        p.scenery(rect(x, b - 30, x + width, b - 26), (126, 170, 104))
        for _ in range(3):
            self._tree(p.scenery, rng, x + 14 + rng.random() * (width - 28), b - 14, 0.7 + rng.random() * 0.3)

    def _tree(self, fill, rng, x, y, s, tone=None):
        tone = tone or pick(rng, [(98, 158, 96), (120, 172, 92), (82, 140, 100), (150, 170, 84), (204, 150, 74)])
        fill(arr([(x - 4 * s, y), (x + 4 * s, y), (x + 2.4 * s, y - 62 * s), (x - 2.4 * s, y - 62 * s)]), (112, 84, 64))
        blobs = [(-20, -66, 22), (18, -62, 24), (0, -86, 28), (-10, -104, 20), (14, -96, 20)]
        for k, (bx, by, r) in enumerate(blobs):
            r *= 0.9 + rng.random() * 0.25
            fill(disc(x + bx * s, y + by * s, r * s, r * .92 * s, 22), shade(tone, 0.9 if k < 2 else 1.0))
        fill(disc(x - 6 * s, y - 100 * s, 13 * s, 9 * s, 16), shade(tone, 1.12))

    def _house(self, p, rng, x, width, mill):
        b = self.world.base
        storeys = 2 + int(rng.random() * 3)
        tone = mix(pick(rng, FACADES), (236, 226, 210), 0.18 + rng.random() * 0.2)
        if mill:
            storeys, tone = 2, (196, 132, 104)
        floor = 44 + rng.random() * 8
        shop = 52 + rng.random() * 6
        h = shop + storeys * floor + 10
        top = b - h
        p.scenery(rect(x, top, x + width, b), tone)
        p.scenery(rect(x, top, x + 5, b), shade(tone, 0.92))
        roof = pick(rng, ["flat", "gable", "mansard", "flat"]) if not mill else "gable"
        dark = mix(shade(tone, 0.5), (90, 70, 74), 0.5)
        if roof == "flat":
            p.scenery(rect(x - 3, top - 7, x + width + 3, top + 2), shade(tone, 0.78))
            if rng.random() < 0.6:
                p.scenery(rect(x + width * .6, top - 24, x + width * .75, top - 7), shade(tone, 0.7))
        elif roof == "gable":
            p.scenery(arr([(x - 5, top + 2), (x + width + 5, top + 2), (x + width * .5, top - 40)]), dark)
        else:
            p.scenery(arr([(x - 3, top + 2), (x + width + 3, top + 2), (x + width - 12, top - 28), (x + 12, top - 28)]), dark)
            for k in range(2):
                xx = x + width * (.27 + .36 * k)
                p.scenery(rect(xx - 2, top - 25, xx + 17, top - 1), shade(tone, 1.05))
                self._window(p, rng, xx + 1, top - 22, xx + 14, top - 4)
        cols = max(2, int(width / 40))
        frame = mix(tone, (255, 255, 255), 0.55)
        sill = rng.random() < 0.5
        for s in range(storeys):
            y = top + 12 + s * floor
            for c in range(cols):
                xx = x + width * (c + .5) / cols
                p.scenery(rect(xx - 11, y - 2, xx + 11, y + 28), frame)
                self._window(p, rng, xx - 9, y, xx - 0.8, y + 26)
                self._window(p, rng, xx + 0.8, y, xx + 9, y + 26)
                if sill:
                    p.scenery(rect(xx - 13, y + 27, xx + 13, y + 31), shade(tone, 0.75))
                elif rng.random() < 0.25:
                    p.scenery(rounded(rect(xx - 12, y + 24, xx + 12, y + 31), 1), (96, 150, 92))
                    for k in range(4):
                        p.scenery(disc(xx - 9 + 6 * k, y + 24, 2.6, n=8), pick(rng, [(230, 84, 96), (250, 210, 90), (240, 240, 240)]))
        # ground floor: a shop with an awning, or the mill with its wheel
        s0 = b - shop + 4
        p.scenery(rect(x, s0 - 8, x + width, s0 - 4), shade(tone, 0.8))
        if mill:
            cx, cy, r = x + width * .66, b - 40, 37
            p.scenery(rect(x + width * .66 - 46, b - 12, x + width + 2, b), (92, 118, 132))
            self.wheel = (cx, cy, r)
            p.scenery(rect(x + 12, s0 + 8, x + 38, b), (98, 70, 56))
            p.scenery(disc(x + 33, b - 24, 1.8, n=8), (230, 200, 120))
        else:
            trim = pick(rng, [(74, 96, 110), (120, 66, 62), (60, 92, 80), (88, 76, 104), (70, 70, 78)])
            p.scenery(rect(x + 6, s0, x + width - 6, b), trim)
            door = x + (12 if rng.random() < 0.5 else width - 42)
            p.scenery(rect(door, s0 + 10, door + 30, b), shade(trim, 0.7))
            self._window(p, rng, door + 4, s0 + 14, door + 26, b - 12, (120, 150, 168), 0.9)
            a, z = (door + 36, x + width - 12) if door < x + width / 2 else (x + 12, door - 6)
            if z - a > 20:
                self._window(p, rng, a, s0 + 12, z, b - 8, (150, 186, 200), 0.95)
                for k in range(int((z - a) / 14)):
                    p.scenery(rounded(rect(a + 4 + 14 * k, b - 20 - rng.random() * 8, a + 13 + 14 * k, b - 8), 1), mix(pick(rng, CLOTH), (150, 186, 200), 0.35))
            hue = pick(rng, [(214, 72, 66), (58, 130, 150), (240, 180, 70), (80, 140, 90), (150, 90, 140)])
            n = max(4, int(width / 15))
            for k in range(n):
                x1, x2 = x + 4 + (width - 8) * k / n, x + 4 + (width - 8) * (k + 1) / n
                p.scenery(arr([(x1, s0 - 3), (x2, s0 - 3), (x2, s0 + 11), ((x1 + x2) / 2, s0 + 15), (x1, s0 + 11)]), hue if k % 2 else (245, 240, 230))

    def _furniture(self, rng):
        """Things that stand in the scene and hide what is behind them: (ground y, draw)."""
        w = self.world
        add = lambda y, fn: self.statics.append((y, fn))

        def lamp(x, y, s, arm):
            def draw(p):
                p.fill(rounded(rect(x - 6 * s, y - 8 * s, x + 6 * s, y), 1), (62, 68, 78))
                p.fill(rect(x - 2.1 * s, y - 176 * s, x + 2.1 * s, y), (62, 68, 78))
                p.fill(capsule((x, y - 174 * s), (x + arm * 26 * s, y - 184 * s), 1.9 * s), (62, 68, 78))
                p.fill(rounded(rect(min(x + arm * 22 * s, x + arm * 42 * s), y - 188 * s, max(x + arm * 22 * s, x + arm * 42 * s), y - 181 * s), 1), (74, 80, 92))
                p.fill(rect(min(x + arm * 25 * s, x + arm * 40 * s), y - 182 * s, max(x + arm * 25 * s, x + arm * 40 * s), y - 179.5 * s), (255, 244, 206))
            self.lamps.append((x + arm * 32 * s, y - 181 * s, y, s))
            add(y, draw)

        far, near = w.base + 33, w.base + 174
        shift = rng.random() * 60
        for k in range(3):
            lamp(110 + shift + k * 330, far, self.world.person_px(far) / 62.0, 1 if k % 2 else -1)
        lamp(230 + rng.random() * 120, near, self.world.person_px(near) / 66.0, 1)
        if rng.random() < 0.6:
            lamp(790 + rng.random() * 100, near, self.world.person_px(near) / 66.0, -1)
        for k in range(3):
            x, s, seed = 20 + shift + k * 330 + rng.random() * 60 - 30, 0.8 + rng.random() * 0.25, rng.random()
            if abs(x - w.cross) < 80:
                continue
            add(far - 1, lambda p, x=x, s=s, seed=seed: self._tree(p.fill, random.Random(seed), x, far - 1, s))
        for k in range(2 + int(rng.random() * 2)):
            x, y = rng.random() * WIDTH, w.base + 182 + rng.random() * 10
            if abs(x - w.cross) < 90:
                continue
            if rng.random() < 0.5:
                def bench(p, x=x, y=y):
                    for yy in (30, 24, 15):
                        p.fill(rect(x - 38, y - yy - 3.5, x + 38, y - yy), (160, 112, 76))
                    for xx in (-30, 28):
                        p.fill(rect(x + xx, y - 32, x + xx + 3, y), (62, 68, 78))
                add(y, bench)
            else:
                tone = pick(rng, [(98, 158, 96), (120, 172, 92), (210, 120, 130)])
                def planter(p, x=x, y=y, tone=tone):
                    for k in range(5):
                        p.fill(disc(x - 26 + 13 * k, y - 25 - (4 if k % 2 else 0), 11, 10, 14), shade(tone, 0.92 + 0.05 * k))
                    p.fill(rounded([(x - 36, y - 20), (x + 36, y - 20), (x + 31, y), (x - 31, y)], 1, 0.1), (124, 116, 112))
                add(y, planter)
        for side in (-1, 1):
            for k in range(2):
                x, y = w.cross + side * (w.cross_half + 10 + 26 * k), w.base + 172
                def bollard(p, x=x, y=y):
                    p.fill(rounded(rect(x - 3.4, y - 24, x + 3.4, y), 1), (70, 76, 86))
                    p.fill(rect(x - 3.4, y - 20, x + 3.4, y - 17), (236, 232, 220))
                add(y, bollard)
        if rng.random() > 0.75:
            x, y = 60 + rng.random() * 120, HEIGHT + 16
            seed = rng.random()
            add(y, lambda p, x=x, y=y: self._tree(p.fill, random.Random(seed), x, y, 2.1))
        self.signals = []
        for x, y in ((w.cross + w.cross_half + 20, w.base + 31), (w.cross - w.cross_half - 22, w.base + 173)):
            s = w.person_px(y) / 62.0
            self.signals.append((x, y - 84 * s, s))
            def signal(p, x=x, y=y, s=s):
                go = w.cars_go(w.t)
                p.fill(rect(x - 1.8 * s, y - 92 * s, x + 1.8 * s, y), (62, 68, 78))
                p.fill(rounded(rect(x - 6 * s, y - 104 * s, x + 6 * s, y - 70 * s), 1), (44, 48, 56))
                for k, c in enumerate(((236, 64, 54), (250, 190, 60), (70, 210, 110))):
                    on = (k == 2) if go else (k == 0)
                    p.fill(disc(x, y - (98 - 11 * k) * s, 3.9 * s, n=12), c if on else shade(c, 0.28))
            add(y, signal)

    def _lamp_light(self):
        """Where the street lamps light the scene, at a quarter of the size."""
        yy, xx = np.mgrid[0:HEIGHT // 4, 0:WIDTH // 4].astype(np.float32) * 4 + 2
        light = np.zeros((HEIGHT // 4, WIDTH // 4), np.float32)
        for x, top, ground, s in self.lamps:
            cone = np.exp(-(((xx - x) / (105 * s)) ** 2 + ((yy - ground - 6) / (42 * s)) ** 2))
            shaft = np.exp(-((xx - x) / (30 * s + 0.55 * np.maximum(yy - top, 0))) ** 2) * ((yy > top - 4) & (yy < ground + 10)) * 0.42
            light += 0.62 * cone + 0.5 * shaft
        return cv2.GaussianBlur(np.minimum(light, 1.05), (0, 0), 2.5)

    def _shadow(self, canvas, cx, cy, rx, ry, strength):
        x1, x2 = max(0, int((cx - rx) * SS)), min(WIDTH * SS, int((cx + rx) * SS) + 2)
        y1, y2 = max(0, int((cy - ry) * SS)), min(HEIGHT * SS, int((cy + ry) * SS) + 2)
        if x2 - x1 < 2 or y2 - y1 < 2:
            return
        u = ((np.arange(x1, x2, dtype=np.float32) - cx * SS) / (rx * SS)) ** 2
        v = ((np.arange(y1, y2, dtype=np.float32) - cy * SS) / (ry * SS)) ** 2
        m = 1.0 - strength * np.clip((1.0 - (u[None] + v[:, None])) * 1.6, 0, 1)
        roi = canvas[y1:y2, x1:x2]
        np.multiply(roi, m[..., None], out=roi, casting="unsafe")

    def _turning_wheel(self, p):
        cx, cy, r = self.wheel
        a0 = self.world.t * 0.7
        wood = (124, 88, 62)
        for k in range(12):
            a = a0 + k * math.pi / 6
            c, s = math.cos(a), math.sin(a)
            p.scenery(capsule((cx, cy), (cx + r * c, cy + r * s), 1.3, n=3), shade(wood, 0.85))
            p.scenery(arr([(cx + (r - 8) * c - 4.5 * s, cy + (r - 8) * s + 4.5 * c), (cx + (r + 4) * c - 4.5 * s, cy + (r + 4) * s + 4.5 * c),
                           (cx + (r + 4) * c + 1 * s, cy + (r + 4) * s - 1 * c), (cx + (r - 8) * c + 1 * s, cy + (r - 8) * s - 1 * c)]), wood)
        for rr in (r, r - 9):
            q = np.rint((disc(cx, cy, rr, n=48) * SS - 0.5) * 16).astype(np.int32)
            cv2.polylines(self.canvas, [q], True, shade(wood, 0.9), int(2.2 * SS), cv2.LINE_AA, 4)
        p.scenery(disc(cx, cy, 5.5, n=14), (80, 60, 50))

    def _sky(self, hour, t):
        n = self.sky_rows
        f = (np.arange(n, dtype=np.float32) / n)[:, None] ** 1.15
        top, low = at_hour(SKY_TOP, hour).astype(np.float32), at_hour(SKY_LOW, hour).astype(np.float32)
        sky = np.ascontiguousarray(np.broadcast_to(np.rint(top + (low - top) * f).astype(np.uint8)[:, None], (n, WIDTH, 3)))
        def spot(points, colour):
            cv2.fillPoly(sky, [np.rint((points - 0.5) * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)
        if hour > 1.7:
            b = min(1.0, (hour - 1.7) / 1.0)
            for x, y, s in self.stars:
                k = b * (0.35 + 0.65 * s)
                base = sky[min(int(y), n - 1), int(x)]
                spot(disc(x, y, 0.7 + 0.7 * s, n=6), tuple(float(c + (240 - c) * k) for c in base))
        sun_y = 58 + 78 * min(hour, 2.4)
        if hour < 2.3:
            c = tuple(at_hour([(255, 246, 206), (255, 226, 150), (255, 150, 110), (255, 120, 100)], hour))
            spot(disc(735, sun_y, 27, n=40), c)
        if hour > 2.0:
            k = min(1.0, (hour - 2.0) * 1.6)
            y = 64 - 10 * k
            col = tuple(float(v) for v in sky[int(y), 200] * (1 - k) + np.float32((246, 240, 214)) * k)
            spot(disc(200, y, 20, n=36), col)
            spot(disc(209, y - 5, 17, n=36), tuple(float(v) for v in sky[int(y), 240]))
        cloud = tuple(at_hour([(255, 255, 255), (255, 226, 196), (196, 118, 138), (34, 42, 84)], hour))
        for x, y, s, v in self.clouds:
            x = (x + v * t + 220) % 1400 - 220
            for dx, dy, r in ((0, 0, 20), (24, -9, 25), (50, -3, 22), (74, 4, 16), (-20, 5, 13)):
                spot(disc(x + dx * s, y + dy * s, r * s * 1.15, r * s * .72, 24), cloud)
            spot(rounded(rect(x - 32 * s, y + 4 * s, x + 90 * s, y + 17 * s)), cloud)
        return sky.astype(np.float32)

    # -- one frame --
    def draw(self, hour, pixels=True):
        """RGB float32 (HEIGHT, WIDTH, 3) in 0..255, and the truth boxes. Without pixels: the boxes alone."""
        w = self.world
        np.copyto(self.canvas, self.background)
        ids = np.zeros((HEIGHT, WIDTH), np.uint8)
        p = Painter(self.canvas, ids)
        if self.wheel:
            self._turning_wheel(p)
        sun = max(0.0, 1.0 - hour / 2.2)
        order = sorted([(o.y, o.ident, o, None) for o in w.objects()] + [(y, -1 - i, None, fn) for i, (y, fn) in enumerate(self.statics)],
                       key=lambda e: (e[0], e[1]))
        slots, drawn, lights = {}, [], []
        for _, _, obj, fn in order:
            if fn is not None:
                p.begin(STATIC_ID, (0.0, 0.0), 1.0, 1)
                p.place = arr
                fn(p)
                del p.place
                continue
            reach = 3.2 * w.ppm(obj.y)
            if not -reach < obj.x < WIDTH + reach or len(slots) >= 250:
                continue
            ident = len(slots) + 1
            slots[ident] = obj
            if pixels:
                size = {PERSON: 0.26, CAR: obj.length * 0.53 if obj.kind == CAR else 0, BICYCLE: 0.85}[obj.kind] * w.ppm(obj.y)
                self._shadow(self.canvas, obj.x + 3 * sun, obj.y - 1, size * 1.08, max(3.0, size * (0.12 if obj.kind == CAR else 0.2)), 0.2 + 0.25 * sun)
            p.begin(ident)
            mine = []
            obj.draw(p, w, mine)
            x1, y1, x2, y2 = p.lo[0], p.lo[1], p.hi[0], p.hi[1]
            c = (max(0.0, x1), max(0.0, y1), min(float(WIDTH), x2), min(float(HEIGHT), y2))
            if c[2] - c[0] < 1 or c[3] - c[1] < 1:
                continue
            roi = ids[int(c[1]):math.ceil(c[3]), int(c[0]):math.ceil(c[2])]
            drawn.append((ident, obj, c, ((c[2] - c[0]) * (c[3] - c[1])) / ((x2 - x1) * (y2 - y1)), roi, int(np.count_nonzero(roi == ident))))
            lights += [(ident,) + light for light in mine]
        truth = []
        for ident, obj, c, inside, roi, alone in drawn:
            visible = round(inside * np.count_nonzero(roi == ident) / max(1, alone), 3)
            small = c[2] - c[0] < 9 or c[3] - c[1] < 18
            truth.append({"x1": round(c[0], 2), "y1": round(c[1], 2), "x2": round(c[2], 2), "y2": round(c[3], 2), "class_id": obj.kind,
                          "label": LABELS[obj.kind], "track_id": obj.ident, "visible": visible, "ignore": bool(visible < MIN_VISIBLE or small)})
        truth.sort(key=lambda b: b["track_id"])
        if not pixels:
            return None, truth
        return self._light(hour, ids, lights), truth

    def _light(self, hour, ids, lights):
        w = self.world
        frame = cv2.resize(self.canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)
        lamps = float(at_hour(LAMPS, hour)[0])
        ambient = at_hour(AMBIENT, hour).astype(np.float32)
        glow = None
        if lamps <= 0:
            frame *= ambient
        else:
            light = self.pool[..., None] * (np.float32((0.92, 0.70, 0.40)) * lamps * 0.78) + ambient
            beams = np.zeros(self.pool.shape, np.float32)
            emit = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            for g, lit in enumerate(self.windows):
                on = min(1.0, max(0.0, (hour - 1.0 - 0.45 * g) * 2.2))
                if on > 0:
                    cv2.addWeighted(emit, 1.0, lit, on, 0, emit)
            emit[ids != 0] = 0
            dot = lambda x, y, r, c: cv2.fillPoly(emit, [np.rint((disc(x, y, r, n=12) - 0.5) * 16).astype(np.int32)], shade(c, lamps), cv2.LINE_AA, 4)
            for ident, what, x, y, r, f, ppm, ground in lights:
                xi, yi = int(x), int(y)
                seen = 0 <= xi < WIDTH and 0 <= yi < HEIGHT and ids[yi, xi] == ident
                if what in ("head", "lamp"):
                    if seen:
                        dot(x, y, r * 1.25, (255, 240, 200))
                    reach = (3.4 if what == "head" else 1.5) * ppm
                    cv2.ellipse(beams, (int((x + f * reach * .75) / 4), int((ground - 2) / 4)), (max(1, int(reach / 4)), max(1, int(reach * .15 / 4))), 0, 0, 360,
                                0.75 if what == "head" else 0.35, -1)
                elif seen:
                    dot(x, y, r * (1.25 if what == "brake" else 1.0), (255, 44, 34) if what == "brake" else (200, 24, 22))
            for x, y, ground, s in self.lamps:
                if ids[min(max(int(y), 0), HEIGHT - 1), min(max(int(x), 0), WIDTH - 1)] in (0, STATIC_ID):
                    dot(x, y, 5.2 * s, (255, 226, 160))
            go = w.cars_go(w.t)
            for x, y, s in self.signals:
                if ids[min(max(int(y), 0), HEIGHT - 1), min(max(int(x), 0), WIDTH - 1)] == STATIC_ID:
                    dot(x, y + (8 if go else -14) * s, 4.2 * s, (70, 230, 120) if go else (255, 60, 50))
            light += cv2.GaussianBlur(beams, (0, 0), 3.0)[..., None] * (np.float32((0.95, 0.88, 0.66)) * lamps)
            frame *= cv2.resize(light, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
            small = cv2.resize(emit, (WIDTH // 4, HEIGHT // 4), interpolation=cv2.INTER_AREA).astype(np.float32)
            glow = cv2.resize(cv2.GaussianBlur(small, (0, 0), 2.2) * 0.75 + cv2.GaussianBlur(small, (0, 0), 6.0) * 0.7, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        n = self.sky_rows
        clear = self.sky_alpha * (ids[:n, :, None] == 0)
        frame[:n] += (self._sky(hour, w.t) - frame[:n]) * clear
        if glow is not None:
            frame += emit
            frame += glow
        return np.clip(frame, 0, 255, out=frame)

    def add_noise(self, frame, hour, gain=1.0):
        """Sensor noise: mostly grey, stronger in the dark."""
        s = np.float32(float(at_hour(NOISE, hour)[0]) * gain)
        frame += self.noise_rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32) * s
        frame += cv2.resize(self.noise_rng.standard_normal((HEIGHT // 2, WIDTH // 2, 3), dtype=np.float32) * (s * np.float32(0.45)), (WIDTH, HEIGHT),
                            interpolation=cv2.INTER_NEAREST)
        return np.clip(frame, 0, 255, out=frame)


# --- Colour and coding --------------------------------------------------------------------------------------------------
KR, KB = 0.2126, 0.0722  # BT.709
KG = 1.0 - KR - KB
TO_YUV = np.float32([[KR * 219 / 255, KG * 219 / 255, KB * 219 / 255, 16.0],
                     [-KR / (2 * (1 - KB)) * 224 / 255, -KG / (2 * (1 - KB)) * 224 / 255, 0.5 * 224 / 255, 128.0],
                     [0.5 * 224 / 255, -KG / (2 * (1 - KR)) * 224 / 255, -KB / (2 * (1 - KR)) * 224 / 255, 128.0]])


def to_yuv420(rgb):
    """RGB 0..255 float32 to planes Y, Cb, Cr: BT.709, limited range, chroma sited left (MPEG-2 siting)."""
    yuv = cv2.transform(rgb, TO_YUV)
    y = np.rint(yuv[..., 0]).clip(16, 235).astype(np.uint8)
    c = yuv[..., 1:]
    # horizontally the chroma sample lies on the even luma column: taps 1 2 1; vertically between two rows: taps 1 1
    pad = np.concatenate([c[:, :1], c], 1)
    c = (pad[:, 0:-1:2] + 2 * pad[:, 1::2] + np.concatenate([pad[:, 2::2], pad[:, -1:]], 1)[:, :pad[:, 1::2].shape[1]]) * 0.25
    c = np.rint((c[0::2] + c[1::2]) * 0.5).clip(16, 240).astype(np.uint8)
    return y, np.ascontiguousarray(c[..., 0]), np.ascontiguousarray(c[..., 1])


def to_rgb(y, u, v):
    """The inverse, at full size, chroma interpolated from its left siting: float32 RGB 0..255."""
    h, w = y.shape
    grid = np.float32([[0.5, 0, 0], [0, 0.5, -0.25]])  # luma index to chroma index
    up = lambda c: cv2.warpAffine(c.astype(np.float32), grid, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
    yuv = cv2.merge([y.astype(np.float32), up(u), up(v)])
    m = np.linalg.inv(TO_YUV[:, :3].astype(np.float64))
    rgb = cv2.transform(yuv, np.hstack([m, -m @ TO_YUV[:, 3:].astype(np.float64)]).astype(np.float32))
    return np.clip(rgb, 0, 255, out=rgb)


def planes_of(frame):
    """Y, Cb, Cr of a decoded yuv420p frame, without its row padding."""
    out = []
    for plane, w, h in zip(frame.planes, (frame.width, (frame.width + 1) // 2, (frame.width + 1) // 2),
                           (frame.height, (frame.height + 1) // 2, (frame.height + 1) // 2)):
        out.append(np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:h, :w])
    return out


def to_frame(planes):
    import av
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], "yuv420p")
    for plane, data in zip(frame.planes, planes):
        h, wd = data.shape
        buf = np.zeros((h, plane.line_size), np.uint8)
        buf[:, :wd] = data
        plane.update(buf)
    frame.color_range, frame.colorspace = 1, 1  # limited (MPEG), BT.709
    return frame


def encode(path, frames, crf=23, preset="medium", gop=FPS, bframes=2, fps=FPS):
    """H.264 High in MP4, yuv420p, B-frames, tagged BT.709 limited with left chroma. One thread, so that the bytes repeat."""
    import av
    from fractions import Fraction
    with av.open(path, "w", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        ctx = stream.codec_context
        ctx.time_base = Fraction(1, fps)
        ctx.thread_count = 1
        ctx.profile = "High"
        ctx.color_range, ctx.colorspace, ctx.color_primaries, ctx.color_trc = 1, 1, 1, 1
        ctx.options = {"preset": preset, "crf": str(crf), "profile": "high",
                       "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={bframes}:b-adapt=0:ref=3:chromaloc=0:"
                                      "colorprim=bt709:transfer=bt709:colormatrix=bt709:range=tv:threads=1:lookahead-threads=1"}
        for n, planes in enumerate(frames):
            frame = to_frame(planes)
            frame.pts, frame.time_base = n, Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", default=".")
    ap.add_argument("--seed", type=int, default=SHIPPED_SEED)
    ap.add_argument("--seconds", type=float, default=SHIPPED_SECONDS)
    ap.add_argument("--crf", type=float, default=23)
    ap.add_argument("--truth-only", action="store_true")
    ap.add_argument("--png", help="comma-separated seconds: write stills instead of the clip")
    args = ap.parse_args()
    cv2.setNumThreads(1)
    os.makedirs(args.out, exist_ok=True)
    world = World(args.seed)
    renderer = Renderer(world)
    count = round(args.seconds * FPS)
    stills = {round(float(s) * FPS) for s in args.png.split(",")} if args.png else None
    lines = []

    def frames():
        for n in range(count):
            if n:
                world.advance(1.0 / FPS)
            hour = shipped_hour(n / FPS)
            if stills is not None and n not in stills:
                continue
            rgb, boxes = renderer.draw(hour, pixels=not args.truth_only)
            lines.append(json.dumps({"seq": n, "pts_ns": n * 1_000_000_000 // FPS, "boxes": boxes}, separators=(",", ":")))
            if args.truth_only:
                continue
            rgb = renderer.add_noise(rgb, hour)
            if stills is not None:
                cv2.imwrite(os.path.join(args.out, f"still-{n:03d}.png"), cv2.cvtColor(rgb.astype(np.uint8), cv2.COLOR_RGB2BGR))
                continue
            yield to_yuv420(rgb)

    if args.truth_only or stills is not None:
        for _ in frames():
            pass
    else:
        encode(os.path.join(args.out, "clip.mp4"), frames(), args.crf)
    if stills is None:
        with open(os.path.join(args.out, "truth.jsonl"), "w") as f:
            f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
