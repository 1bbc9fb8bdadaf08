"""Floor 4: the loops that move messages. Knows transports only through `catga.spi`."""
