module spore

go 1.21
