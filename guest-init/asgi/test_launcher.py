"""Tests of the launcher's own parts; `cargo test -p guest-init` runs them with the host's Python."""

import asyncio
import contextlib
import gc
import importlib.util
import io
import os
import pathlib
import random
import signal
import tempfile
import unittest

PATH = pathlib.Path(__file__).with_name("launcher.py")
SPEC = importlib.util.spec_from_file_location("launcher", PATH)
launcher = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(launcher)
launcher.HELD_SECONDS = 0.2


def start(status):
    return {"type": "http.response.start", "status": status, "headers": []}


def body(data, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


async def play(application):
    """What is sent, in order, and how the call ended."""
    sent = []

    async def send(message):
        # As a server does that waits for its client.
        await asyncio.sleep(0)
        sent.append(message)

    call = asyncio.ensure_future(launcher.TracebackResponder(application)({"type": "http", "path": "/"}, None, send))
    return sent, call


def data(sent):
    return b"".join(message.get("body", b"") for message in sent)


class TracebackResponder(unittest.IsolatedAsyncioTestCase):
    async def test_a_frameworks_own_500_gives_way_to_the_traceback(self):
        async def application(scope, receive, send):
            await send(start(500))
            await send(body(b"Internal Server Error"))
            raise ValueError("boom")

        sent, call = await play(application)
        await call
        self.assertEqual(sent[0]["status"], 500)
        self.assertIn(b"ValueError: boom", data(sent))
        self.assertNotIn(b"Internal Server Error", data(sent))

    async def test_a_500_that_is_meant_arrives_whole_and_in_order(self):
        async def application(scope, receive, send):
            await send(start(500))
            for piece in range(100):
                await send(body(b"%03d" % piece, more=True))
                await asyncio.sleep(0.005)
            await send(body(b"", more=False))

        sent, call = await play(application)
        await call
        self.assertEqual(data(sent), b"".join(b"%03d" % piece for piece in range(100)))
        self.assertEqual(sent[0]["type"], "http.response.start")
        self.assertIs(sent[-1]["more_body"], False)

    async def test_a_500_does_not_wait_for_what_the_program_does_after_it(self):
        for more in (False, True):
            done = asyncio.Event()

            async def application(scope, receive, send):
                await send(start(500))
                await send(body(b"sorry", more=more))
                await done.wait()

            sent, call = await play(application)
            await asyncio.sleep(1)
            self.assertEqual(data(sent), b"sorry")
            done.set()
            await call

    async def test_an_exception_after_the_start_is_the_servers_to_see(self):
        async def application(scope, receive, send):
            await send(start(200))
            await send(body(b"half", more=True))
            raise ValueError("late")

        sent, call = await play(application)
        with self.assertRaises(ValueError):
            await call
        self.assertEqual(data(sent), b"half")

    async def test_other_answers_are_passed_on_as_they_come(self):
        async def application(scope, receive, send):
            await send(start(404))
            self.assertEqual(sent[0]["status"], 404)
            await send(body(b"no"))
            self.assertEqual(data(sent), b"no")

        sent, call = await play(application)
        await call


class Settle(unittest.IsolatedAsyncioTestCase):
    async def test_the_servers_first_request_is_not_the_applications(self):
        seen, answered = [], []

        async def application(scope, receive, send):
            seen.append(scope["path"])
            await send(start(200))
            await send(body(b"hello"))

        responder = launcher.TracebackResponder(application)

        async def serve(reader, writer):
            request = await reader.readuntil(b"\r\n\r\n")

            async def send(message):
                answered.append(message.get("status"))

            await responder({"type": "http", "path": request.split()[1].decode()}, None, send)
            writer.close()

        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/socket"
            server = await asyncio.start_unix_server(serve, path)
            self.addCleanup(gc.unfreeze)
            await launcher.settle(responder, path)
            self.assertEqual((seen, answered[0]), ([], 204))
            self.assertGreater(gc.get_freeze_count(), 0)
            server.close()
            # A server that is gone costs nothing but the attempt.
            await launcher.settle(responder, path + "-gone")
        self.assertIsNone(responder.own_path)


class Report(unittest.TestCase):
    def test_a_long_traceback_keeps_its_end(self):
        with tempfile.NamedTemporaryFile() as file:
            with self.assertRaises(SystemExit):
                launcher.fail(file.name, "boom", "é" * 300_000 + "the end")
            text = pathlib.Path(file.name).read_bytes()
        self.assertTrue(text.startswith(b"Fboom\n") and text.endswith(b"the end"))
        self.assertLess(len(text), 256 * 1024)


class Renewal(unittest.TestCase):
    def test_a_signal_starts_generators_anew_and_runs_the_programs_hooks(self):
        before = signal.getsignal(signal.SIGCONT)
        self.addCleanup(signal.signal, signal.SIGCONT, before)
        launcher.Renewal().install()
        import beth

        ran = []

        @beth.after_restore
        def fails():
            ran.append("fails")
            raise ValueError("of the program")

        @beth.after_restore
        def renew():
            ran.append("renew")

        random.seed(1)
        repeated = [random.random() for _ in range(4)]
        names = tempfile._get_candidate_names()
        random.seed(1)
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            os.kill(os.getpid(), signal.SIGCONT)
        self.assertEqual(ran, ["fails", "renew"])
        self.assertIn("ValueError: of the program", stderr.getvalue())
        self.assertNotEqual([random.random() for _ in range(4)], repeated)
        self.assertIsNot(tempfile._get_candidate_names(), names)


if __name__ == "__main__":
    unittest.main()
