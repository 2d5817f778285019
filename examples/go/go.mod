module spore.example

go 1.21
