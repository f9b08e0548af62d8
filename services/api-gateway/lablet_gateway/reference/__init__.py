"""The reference documents: OpenAPI of the API, AsyncAPI and JSON Schemas of the events, made from the code.

`python -m lablet_gateway.reference FOLDER` writes them; they are stored in docs/reference and compared in the tests, so that
a change of the contract has to be meant. The same documents are served by every gateway.
"""
