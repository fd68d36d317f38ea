"""``python -m quarterdeck.gateway``: the data plane as a process."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys

import msgspec

from quarterdeck.errors import QuarterdeckError

from .logs import configure
from .options import Options, parse


async def serve(options: Options) -> None:
    """Run until SIGTERM or SIGINT, or until the supervisor is gone, then drain."""
    from .app import Gateway  # a supervisor needs none of it

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if options.share is not None:
        options.share.watch(stopping.set)
    gateway = Gateway(options)
    if gateway.files is not None:
        loop.add_signal_handler(signal.SIGHUP, gateway.files.reload)
    await gateway.start()
    if options.share is None:
        sys.stderr.write(msgspec.json.encode(gateway.endpoints).decode() + "\n")
    gc.freeze()  # what start-up made lives as long as the process: no need to look at it again
    gc.set_threshold(50_000, 20, 50)
    await stopping.wait()
    await gateway.stop()


def _raise_limits() -> None:
    """As many open files as the machine grants: each client takes one, and one behind the gateway."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Exit code 0 after a drained stop, else that of the error."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        options = parse(sys.argv[1:])
        configure(options.log_level, options.log_format)
        if sys.platform != "win32":
            _raise_limits()
        if options.workers > 1:
            from .workers.supervisor import supervise

            asyncio.run(supervise(sys.argv[1:], options, options.workers))
        elif sys.platform == "win32":
            asyncio.run(serve(options))
        else:
            import uvloop

            uvloop.run(serve(options))
    except QuarterdeckError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
