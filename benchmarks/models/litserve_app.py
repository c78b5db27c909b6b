"""A LitServe server of one ONNX file, run by the Python of LitServe's own environment.

Argument: a JSON object: `file`, `name`, `dtype` and row `shape` of the input, `port`, `threads`,
`rows` of a batch, `wait_s` for one. It imports nothing of ours. In: `{"row": base64}` a POST to
/predict. Out: the same.
"""

import base64
import json
import sys
from typing import Any

import litserve  # type: ignore[import-not-found]  # only in the peer's environment
import numpy as np
import onnxruntime


class Api(litserve.LitAPI):  # type: ignore[misc]
    """One session, with the options that ours has."""

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
        for rows in (1, 2, 4, asked["rows"]):
            self.predict(np.zeros((rows, *asked["shape"]), asked["dtype"]))

    def decode_request(self, request: dict[str, str]) -> Any:
        """A row."""
        raw = base64.b64decode(request["row"])
        return np.frombuffer(raw, self.asked["dtype"]).reshape(self.asked["shape"])

    def batch(self, inputs: list[Any]) -> Any:
        """Rows as one array."""
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        """The first output."""
        return self._session.run(None, {self.asked["name"]: x})[0]

    def unbatch(self, output: Any) -> list[Any]:
        """One a row."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, str]:
        """A row as text."""
        return {"row": base64.b64encode(output.tobytes()).decode()}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    api = Api(max_batch_size=given["rows"], batch_timeout=given["wait_s"])
    api.asked = given
    server = litserve.LitServer(api, accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=given["port"], generate_client_file=False, log_level="error")
