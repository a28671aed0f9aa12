"""The public gRPC service: who has a place, how far a clip is, who has left."""
