# Counts the words of all its calls, on all hosts: a dictionary that outlives them. docs/languages.md says how functions
# come by the module `spore`.
import spore

with spore.Dict("words") as words:
    for word in spore.input().decode().split():
        words[word] = words.get(word, 0) + 1
    for word in sorted(words, key=lambda word: (-words[word], word))[:10]:
        spore.output(f"{words[word]} {word}\n")
