"""A LitServe server of one ONNX file, run by the Python of LitServe's own environment.

Argument: a JSON object: `file`, `dtype` and row `shape` of the first input, `port`, `threads`,
`rows` of a batch, `wait_s` for one, and `texts`: whether rows are token ids. It imports nothing of
ours. In: `{"row": base64}` or `{"tokens": [id]}` a POST to /predict. Out: `{"row": base64}`.
"""

import base64
import json
import sys
from typing import Any

import litserve  # type: ignore[import-not-found]  # only in the peer's environment
import numpy as np
import onnxruntime


class Rows(litserve.LitAPI):  # type: ignore[misc]
    """One session, with the options that ours has; rows of one shape."""

    def setup(self, device: str) -> None:
        """Open the session and warm it up."""
        del device
        asked = self.asked
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = asked["threads"]
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            asked["file"], options, providers=["CPUExecutionProvider"]
        )
        self._names = [found.name for found in self._session.get_inputs()]
        for rows in (1, 2, 4, asked["rows"]):
            self.predict(self.batch([self.blank()] * rows))

    def blank(self) -> Any:
        """A row of zeros."""
        return np.zeros(self.asked["shape"], self.asked["dtype"])

    def decode_request(self, request: dict[str, Any]) -> Any:
        """A row."""
        raw = base64.b64decode(request["row"])
        return np.frombuffer(raw, self.asked["dtype"]).reshape(self.asked["shape"])

    def batch(self, inputs: list[Any]) -> Any:
        """Rows as the arrays of the session's inputs."""
        return [np.stack(inputs)]

    def predict(self, x: Any) -> Any:
        """The first output."""
        return self._session.run(None, dict(zip(self._names, x, strict=True)))[0]

    def unbatch(self, output: Any) -> list[Any]:
        """One a row."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, str]:
        """A row as text."""
        return {"row": base64.b64encode(output.tobytes()).decode()}


class Texts(Rows):
    """Rows are token ids of any length, padded to the longest of their batch."""

    def blank(self) -> Any:
        """A text of usual length."""
        return np.zeros(16, np.int64)

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Token ids."""
        return np.array(request["tokens"], np.int64)

    def batch(self, inputs: list[Any]) -> Any:
        """Ids and mask, (rows, longest) each, in the order of the session's inputs."""
        ids = np.zeros((len(inputs), max(map(len, inputs))), np.int64)
        mask = np.zeros_like(ids)
        for place, tokens in enumerate(inputs):
            ids[place, : len(tokens)] = tokens
            mask[place, : len(tokens)] = 1
        return [mask if "mask" in name else ids for name in self._names]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    kind = Texts if given["texts"] else Rows
    api = kind(max_batch_size=given["rows"], batch_timeout=given["wait_s"])
    api.asked = given
    server = litserve.LitServer(api, accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=given["port"], generate_client_file=False, log_level="error")
