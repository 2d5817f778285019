module guest

go 1.21

require spore v0.0.0

replace spore => ../../../../sdk/go
