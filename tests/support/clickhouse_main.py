"""Runs ClickHouse inside this process until standard input closes.

``python clickhouse_main.py LIBRARY CONFIG DATA NATIVE_PORT HTTP_PORT``. The library is libchdb.so, which has
everything of a server but its command line; its client mode can be told to listen.
"""

import ctypes
import sys

# Reading standard input keeps the client mode busy, so that it serves until the starter closes the pipe.
_SERVE = (
    "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
    "SELECT * FROM file('-', 'LineAsString', 'line String') FORMAT Null"
)


def main(library: str, config: str, data: str, native_port: str, http_port: str) -> None:
    """Serve; returns when standard input has closed."""
    arguments = [
        "clickhouse",
        f"--config-file={config}",
        f"--path={data}",
        f"--tcp_port={native_port}",
        f"--http_port={http_port}",
        "--listen_host=127.0.0.1",
        # The level in the configuration file is overridden by the client mode's own.
        "--log-level=warning",
        f"--query={_SERVE}",
    ]
    run = ctypes.CDLL(library).chdb_query_cmdline
    run.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    # A result that nobody reads; as the default int it would lose half of the pointer.
    run.restype = ctypes.c_void_p
    run(len(arguments), (ctypes.c_char_p * len(arguments))(*(text.encode() for text in arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
