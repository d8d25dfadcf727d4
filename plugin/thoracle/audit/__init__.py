"""The audit log: asked, told in sentences, proven, replayed and sent on."""
