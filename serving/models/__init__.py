"""One application a model: the Open Inference Protocol over HTTP and gRPC, and handles."""
