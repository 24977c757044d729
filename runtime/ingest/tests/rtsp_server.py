#!/usr/bin/python3
"""A real RTSP server for tests: gst-rtsp-server, playing a file in its own time.

usage: rtsp_server.py FILE PORT [USER PASSWORD]

Prints 'ready' when it listens; port 0 is not possible, the caller finds a free one. Debian packages:
gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad.
Exits with 77 when they are missing.
"""

import sys

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer
except (ImportError, ValueError) as error:
    print(f"missing: {error}", flush=True)
    sys.exit(1)

path, port, *user = sys.argv[1:]
Gst.init(None)
missing = [name for name in ("qtdemux", "h264parse", "rtph264pay") if Gst.ElementFactory.find(name) is None]
if missing:
    print(f"missing: GStreamer elements {missing}", flush=True)
    sys.exit(1)
server = GstRtspServer.RTSPServer()
server.set_service(port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( filesrc location={path} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 )")
if user:
    name, password = user
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(name, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)
server.get_mount_points().add_factory("/camera", factory)
if server.attach(None) == 0:
    print(f"cannot listen on port {port}", flush=True)
    sys.exit(1)
print("ready", flush=True)
GLib.MainLoop().run()
