"""Runs LocalStack's open core on loopback without Docker, until standard input ends: it ends with its parent.

usage: boot.py DYNAMO_FOLDER
"""

import os
import signal
import sys
import threading

from twisted.internet import endpoints, reactor

from localstack.runtime import server
from localstack.runtime.main import main
from localstack.services.dynamodb.packages import DynamoDBLocalPackageInstaller
from localstack.services.dynamodb.server import DynamodbServer
from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin
from localstack.services.lambda_.invocation.runtime_executor import EXECUTOR_PLUGIN_MANAGER
from localstack.utils.run import ShellCommandThread

import executor

DYNAMO = sys.argv[1]


def follow() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    # It leads a group of its own, in which DynamoDB Local and the functions are too.
    os.killpg(0, signal.SIGKILL)


def loopback_only() -> None:
    """The gateway binds every interface, whatever GATEWAY_LISTEN says."""
    plain = endpoints.TCP4ServerEndpoint

    def bound(reactor_, port, backlog=50, interface="127.0.0.1"):
        return plain(reactor_, port, backlog, interface)

    endpoints.TCP4ServerEndpoint = bound


def own_dynamo() -> None:
    """Takes the DynamoDB Local and the Java that are there, where LocalStack would download its own."""

    def command(self):
        classes = os.pathsep.join([f"{DYNAMO}/loopback", f"{DYNAMO}/lib/*"])
        return [
            *("java", f"-Xmx{self.heap_size}", "-XX:TieredStopAtLevel=1"),
            *(f"-Djava.library.path={DYNAMO}/lib", "-cp", classes, "Loopback"),
            *("-inMemory", "-disableTelemetry", "-port", str(self.port)),
        ]

    DynamoDBLocalPackageInstaller.install = lambda self, *_: None
    DynamoDBLocalPackageInstaller.get_java_env_vars = lambda self: {}
    DynamodbServer._create_shell_command = command


class Processes(RuntimeExecutorPlugin):
    name = "process"

    def load(self, *_, **__):
        return executor.ProcessExecutor


def own_executor() -> None:
    plugin = Processes()
    exists, load = EXECUTOR_PLUGIN_MANAGER.exists, EXECUTOR_PLUGIN_MANAGER.load
    EXECUTOR_PLUGIN_MANAGER.exists = lambda name: name == plugin.name or exists(name)
    EXECUTOR_PLUGIN_MANAGER.load = lambda name, *args: plugin if name == plugin.name else load(name, *args)


loopback_only()
own_dynamo()
own_executor()
threading.Thread(target=follow, daemon=True).start()
sys.exit(main())
