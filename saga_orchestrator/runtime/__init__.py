"""Where sagas run: asyncio lives here. The engine applies events through the store and performs what follows."""
