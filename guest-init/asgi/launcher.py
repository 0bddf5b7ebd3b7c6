"""Runs an ASGI application under uvicorn on a unix socket, and tells init how it goes.

Arguments: code folder, entry point (`module.path:attribute`), socket path, report path.

The report is a FIFO that init reads: `R` once the application listens, or `F`, one line that says what failed, and
the traceback up to the end.
"""

import asyncio
import contextlib
import gc
import importlib
import os
import signal
import sys
import traceback
import types

# An application's 500 is held back this far, and this long, while its exception is awaited.
HELD_BYTES = 64 * 1024
HELD_SECONDS = 1
# How long a request of our own may take.
SETTLE_SECONDS = 10
# What is told of a failure; a longer traceback keeps its end, which says what happened.
ERROR_CHARACTERS = 2000
TRACEBACK_BYTES = 200_000


def report(path, text):
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as pipe:
        pipe.write(text)


def fail(path, error, trace):
    error = " ".join(str(error).split())[:ERROR_CHARACTERS]
    end = trace.encode("utf-8", "backslashreplace")[-TRACEBACK_BYTES:].decode("utf-8", "ignore")
    report(path, "F" + error + "\n" + end)
    sys.exit(1)


def describe(error):
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class TracebackResponder:
    """Answers an exception of the application with status 500 and its traceback as text.

    Frameworks answer an exception with a bare 500 of their own and then raise it, so a response of status 500 is held
    back for a moment: if the application raises, the traceback is sent instead. Responses of any other status, and those
    that are longer than what is held back, in bytes or in time, pass through as they come.
    """

    def __init__(self, application):
        self.application = application
        # Path of the one request that is our own, until it was served.
        self.own_path = None

    async def __call__(self, scope, receive, send):
        if self.own_path is not None and scope["type"] == "http" and scope["path"] == self.own_path:
            self.own_path = None
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        held = []
        held_bytes = 0
        started = False
        timer = None
        # One message at a time: what is released goes before what follows it.
        turn = asyncio.Lock()

        async def release():
            nonlocal started
            async with turn:
                started = True
                while held:
                    await send(held.pop(0))

        async def release_later():
            await asyncio.sleep(HELD_SECONDS)
            # A client that is gone is told to the application at its next message.
            with contextlib.suppress(Exception):
                await release()

        async def watched_send(message):
            nonlocal held_bytes, started, timer
            async with turn:
                if not started and not held:
                    started = message["type"] == "http.response.start" and message["status"] != 500
                if started:
                    await send(message)
                    return
                held.append(message)
                held_bytes += len(message.get("body", b""))
                if timer is None:
                    timer = asyncio.ensure_future(release_later())
            if held_bytes > HELD_BYTES:
                await release()

        try:
            await self.application(scope, receive, watched_send)
        except Exception:
            async with turn:
                was_started, started = started, True
                held.clear()
            if was_started:
                raise
            trace = traceback.format_exc()
            print(trace, file=sys.stderr, flush=True)
            body = trace.encode("utf-8", "backslashreplace")
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 500, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        except (SystemExit, KeyboardInterrupt) as stop:
            # The program ends itself: it is not an answer, and nobody else may swallow it.
            sys.stdout.flush()
            sys.stderr.flush()
            code = getattr(stop, "code", 1)
            os._exit(code if isinstance(code, int) else 0 if code is None else 1)
        else:
            await release()
        finally:
            if timer is not None:
                timer.cancel()


async def settle(responder, socket_path):
    """Before the program is said to listen, and perhaps copied: what the first request would do for all, and every copy anew, is done.

    A request that the application does not see goes through the server once, so that its own first time is over. Modules that are imported at
    a first request are imported. And the collector lets everything that is there be: it would write to all of it, and each copy would have to
    have all of it for itself.
    """
    if "anyio" in sys.modules:
        with contextlib.suppress(ImportError):
            importlib.import_module("anyio._backends._asyncio")
    path = "/" + os.urandom(16).hex()
    responder.own_path = path
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        await asyncio.wait_for(reader.read(), SETTLE_SECONDS)
        writer.close()
    except (OSError, asyncio.TimeoutError):
        # The program serves as well without.
        pass
    finally:
        responder.own_path = None
    gc.collect()
    gc.freeze()


class Renewal:
    """What init's signal does once this process runs in a copy of the machine that it was started in.

    Whatever was drawn at random before is drawn in every copy, so generators start anew. A program adds what only it knows:

        import beth

        @beth.after_restore
        def renew():
            ...
    """

    def __init__(self):
        self.hooks = []

    def after_restore(self, hook):
        self.hooks.append(hook)
        return hook

    def __call__(self, *_):
        modules = sys.modules
        if "random" in modules:
            modules["random"].seed()
        if "tempfile" in modules:
            modules["tempfile"]._name_sequence = None
        if "uuid" in modules:
            # The clock sequence of version 1.
            modules["uuid"]._last_timestamp = None
        if "ssl" in modules:
            modules["ssl"].RAND_add(os.urandom(32), 32.0)
        if "numpy.random" in modules:
            modules["numpy.random"].seed()
        for hook in self.hooks:
            try:
                hook()
            except Exception:
                # The others are run, and the program goes on.
                traceback.print_exc()

    def install(self):
        module = types.ModuleType("beth", "What a program can know of the machine that it runs in.")
        module.after_restore = self.after_restore
        sys.modules["beth"] = module
        signal.signal(signal.SIGCONT, self)


def load(code, entrypoint):
    for path in (f"{code}", "/opt/packages"):
        if path in sys.path:
            sys.path.remove(path)
    sys.path[:0] = [code, "/opt/packages"]
    module_name, _, attribute = entrypoint.partition(":")
    application = importlib.import_module(module_name)
    for part in attribute.split("."):
        application = getattr(application, part)
    return application


def main():
    code, entrypoint, socket_path, report_path = sys.argv[1:5]
    # The application sees a command line of its own, not ours.
    sys.argv[:] = [entrypoint]
    try:
        import uvicorn
    except ImportError as error:
        fail(report_path, f"the runtime has no ASGI server: {error}", traceback.format_exc())
    Renewal().install()
    try:
        application = load(code, entrypoint)
    except SystemExit as stop:
        fail(report_path, f"the program ended while it was imported (exit code {stop.code})", traceback.format_exc())
    except BaseException as error:
        trace = traceback.format_exc()
        # Whoever reads the program's log sees it too.
        sys.stderr.write(trace)
        fail(report_path, describe(error), trace)

    responder = TracebackResponder(application)
    config = uvicorn.Config(
        responder,
        uds=socket_path,
        lifespan="auto",
        interface="asgi3",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        # The host's server says what time it is: this one would have to look every second.
        date_header=False,
        # The host decides how long a request may take and when a connection ends.
        timeout_keep_alive=86400,
        timeout_graceful_shutdown=20,
        ws_max_size=16 * 1024 * 1024,
    )

    class Server(uvicorn.Server):
        loop = None

        async def main_loop(self):
            # The original looks ten times a second whether it is to end, and a machine that does is never idle.
            self.loop, self.woken = asyncio.get_running_loop(), asyncio.Event()
            if not self.should_exit:
                await self.woken.wait()

        def handle_exit(self, number, frame):
            super().handle_exit(number, frame)
            if self.loop is not None:
                self.loop.call_soon_threadsafe(self.woken.set)

        async def startup(self, sockets=None):
            await super().startup(sockets=sockets)
            if self.started:
                await settle(responder, socket_path)
                report(report_path, "R")

    # What a failing startup hook says goes to uvicorn's log; it is kept for the report as well.
    import logging

    class Keeper(logging.Handler):
        def __init__(self):
            super().__init__()
            self.lines = []

        def emit(self, record):
            self.lines.append(self.format(record))
            del self.lines[:-200]

    keeper = Keeper()
    logging.getLogger("uvicorn.error").addHandler(keeper)
    server = Server(config)
    server.run()
    if not server.started:
        kept = "\n".join(keeper.lines)
        last = next((line for line in reversed(kept.splitlines()) if line and not line[0].isspace() and ": " in line), "")
        fail(report_path, f"the application's startup failed: {last}" if last else "the application's startup failed", kept)


if __name__ == "__main__":
    main()
