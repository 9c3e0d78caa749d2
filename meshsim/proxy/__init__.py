"""The asyncio data plane: reads xds, asks routing, moves bytes."""
