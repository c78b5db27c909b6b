"""Serving: the applications that put multimodal understanding online, on Ray Serve.

In: bundles (`export.repository`), a feature store (`feature_store`), HTTP and gRPC requests.
Out: semantic IDs, embeddings and verdicts. The only package that imports Ray; it needs the
extra `serving` (`pip install tessera[serving]`).
"""
