# make              builds ./network: ./network [THREADS [RUNS]] (or --help) checks the network and prints a measurement's record
# make network.so   builds the library, which espalier.compiler's CompiledModel.from_folder loads
# make SANITIZE=1   builds ./network with address and undefined-behaviour checks; make OPENMP=1 with OpenMP's threads (make clean first)
CFLAGS = @FLAGS@
PROGRAM = main.c espalier_record.c espalier_words.c
OBJECTS = $(patsubst %.c,%.o,$(filter-out $(PROGRAM),$(wildcard *.c)))
ifdef SANITIZE
CFLAGS += @SANITIZERS@
endif
ifdef OPENMP
CFLAGS += -fopenmp -DES_OPENMP
endif

network: $(PROGRAM:.c=.o) $(OBJECTS)
	$(CC) $(CFLAGS) -o $@ $^ -lm

network.so: $(OBJECTS)
	$(CC) $(CFLAGS) -shared -o $@ $^ -lm

%.o: %.c $(wildcard *.h)
	$(CC) $(CFLAGS) -c -o $@ $<

clean:
	rm -f *.o network network.so

.PHONY: clean
