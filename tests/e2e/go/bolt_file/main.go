// Command bolt_file writes a bbolt file with many keys, large values and nested buckets, and prints what is in it: one line
// for each key, its path and its value's SHA-256, in the order of the file.
package main

import (
	"crypto/sha256"
	"fmt"
	"log"
	"math/rand"
	"os"
	"strings"

	bolt "go.etcd.io/bbolt"
)

func fill(b *bolt.Bucket, r *rand.Rand, depth, keys int) error {
	for i := 0; i < keys; i++ {
		// Now and then a value that needs pages of its own.
		size := r.Intn(200)
		if r.Intn(50) == 0 {
			size = r.Intn(40000)
		}
		value := make([]byte, size)
		r.Read(value)
		if err := b.Put([]byte(fmt.Sprintf("key-%d-%d", r.Intn(1000), i)), value); err != nil {
			return err
		}
	}
	if depth == 0 {
		return nil
	}
	for i := 0; i < 5; i++ {
		inner, err := b.CreateBucketIfNotExists([]byte(fmt.Sprintf("bucket-%d", i)))
		if err != nil {
			return err
		}
		if _, err := inner.NextSequence(); err != nil {
			return err
		}
		if err := fill(inner, r, depth-1, []int{0, 1, 10, 300, 2000}[i]); err != nil {
			return err
		}
	}
	return nil
}

func show(b *bolt.Bucket, above []string) error {
	return b.ForEach(func(k, v []byte) error {
		path := append(append([]string{}, above...), string(k))
		if v == nil {
			inner := b.Bucket(k)
			fmt.Printf("%s bucket %d\n", strings.Join(path, "/"), inner.Sequence())
			return show(inner, path)
		}
		fmt.Printf("%s %x\n", strings.Join(path, "/"), sha256.Sum256(v))
		return nil
	})
}

func main() {
	db, err := bolt.Open(os.Args[1], 0o600, nil)
	if err != nil {
		log.Fatal(err)
	}
	r := rand.New(rand.NewSource(1))
	// Many transactions, so that pages are freed and used again.
	for round := 0; round < 4; round++ {
		if err := db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("top"))
			if err != nil {
				return err
			}
			return fill(b, r, 2, 500)
		}); err != nil {
			log.Fatal(err)
		}
		if err := db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte("top"))
			gone := 0
			c := b.Cursor()
			for k, v := c.First(); k != nil && gone < 200; k, v = c.Next() {
				if v != nil && r.Intn(3) == 0 {
					gone++
					if err := c.Delete(); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			log.Fatal(err)
		}
	}
	if err := db.View(func(tx *bolt.Tx) error { return show(tx.Bucket([]byte("top")), []string{"top"}) }); err != nil {
		log.Fatal(err)
	}
	if err := db.Close(); err != nil {
		log.Fatal(err)
	}
}
