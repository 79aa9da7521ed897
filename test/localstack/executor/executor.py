"""Runs Lambda functions in Node as processes of this machine: for our own code only, as nothing isolates them."""

import json
import os
import subprocess
import tempfile
import threading
from collections import deque
from pathlib import Path

from localstack import config
from localstack.services.lambda_.invocation.lambda_models import InvocationResult
from localstack.services.lambda_.invocation.runtime_executor import LambdaRuntimeException, RuntimeExecutor

RUNTIME = Path(__file__).with_name("runtime.mjs")
LOG_LINES = 2_000
HOST = "127.0.0.1"


class ProcessExecutor(RuntimeExecutor):
    """One execution environment: a process that is given one invocation after another.

    Requests and answers are lines of JSON on two pipes of their own, so that the function's output stays the function's.
    """

    def __init__(self, id, function_version):
        super().__init__(id=id, function_version=function_version)
        self.turn = threading.Lock()
        self.log = deque(maxlen=LOG_LINES)
        self.child = None
        self.environment = {}

    # What LocalStack asks of an executor.

    def start(self, env_vars):
        runtime = self.function_version.config.runtime or "an image"
        if not runtime.startswith("nodejs"):
            raise LambdaRuntimeException(f"functions run as processes in Node only, not in {runtime}")
        code = str(self.function_version.config.code.get_unzipped_code_location())
        own = {"PATH": os.environ["PATH"], "TMPDIR": tempfile.gettempdir(), "LAMBDA_TASK_ROOT": code, "TZ": "UTC"}
        self.environment = {**{name: str(value) for name, value in env_vars.items()}, **own}
        self._spawn()

    def stop(self):
        child = self.child
        if child is not None and child.poll() is None:
            # As Lambda does, without asking.
            child.kill()
            child.wait()

    def invoke(self, payload):
        request_id = payload["invoke-id"]
        seconds = self.function_version.config.timeout
        with self.turn:
            self.log.clear()
            if self.child.poll() is not None:
                # Whatever ended the last one, the next invocation begins in a fresh environment.
                self._spawn()
            late = threading.Event()
            timer = threading.Timer(seconds, lambda: (late.set(), self.child.kill()))
            timer.start()
            try:
                answer = self._ask(
                    {
                        "id": request_id,
                        "arn": payload["invoked-function-arn"],
                        "event": payload["payload"] or "{}",
                        "milliseconds": seconds * 1000,
                    }
                )
            finally:
                timer.cancel()
            if answer is None:
                self.child.wait()
                answer = self._broken(request_id, f"Task timed out after {seconds:.2f} seconds" if late.is_set() else None)
            return InvocationResult(request_id, answer["body"].encode(), answer["failed"], self.get_logs())

    def get_logs(self):
        return "".join(self.log)

    def get_address(self):
        return HOST

    def get_endpoint_from_executor(self):
        return HOST

    def get_runtime_endpoint(self):
        return f"http://{HOST}:{config.GATEWAY_LISTEN[0].port}/_localstack_lambda/{self.id}"

    @classmethod
    def prepare_version(cls, function_version):
        function_version.config.code.prepare_for_execution()

    @classmethod
    def cleanup_version(cls, function_version):
        function_version.config.code.destroy_cached()

    # The process.

    def _spawn(self):
        theirs_in, self_out = os.pipe()
        self_in, theirs_out = os.pipe()
        self.child = subprocess.Popen(
            [os.environ["NODE"], str(RUNTIME), str(theirs_in), str(theirs_out)],
            cwd=self.environment["LAMBDA_TASK_ROOT"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs_in, theirs_out),
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.requests = open(self_out, "w", encoding="utf-8")
        self.answers = open(self_in, encoding="utf-8")
        threading.Thread(target=self._keep, args=(self.child.stdout,), daemon=True).start()
        ready = self._read()
        if ready is None or ready["failed"]:
            self.stop()
            raise LambdaRuntimeException(self.get_logs() if ready is None else ready["body"])

    def _keep(self, output):
        for line in output:
            self.log.append(line.decode(errors="replace"))

    def _ask(self, request):
        try:
            self.requests.write(json.dumps(request) + "\n")
            self.requests.flush()
        except BrokenPipeError:
            return None
        return self._read()

    def _read(self):
        line = self.answers.readline()
        return json.loads(line) if line.endswith("\n") else None

    @staticmethod
    def _broken(request_id, timed_out):
        kind = "Sandbox.Timedout" if timed_out else "Runtime.ExitError"
        message = f"RequestId: {request_id} Error: {timed_out or 'Runtime exited without providing a reason'}"
        return {"failed": True, "body": json.dumps({"errorType": kind, "errorMessage": message})}
