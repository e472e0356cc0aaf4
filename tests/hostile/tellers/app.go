// An app on Go's net/http that prints what each request says of its caller. Arguments are the addresses to listen on.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said := append(r.Header.Values("X-Forwarded-Client-Cert"), r.Header.Values("X_Forwarded_Client_Cert")...)
		line, _ := json.Marshal(map[string]string{"path": r.URL.Path, "said": strings.Join(said, ", ")})
		fmt.Println(string(line))
		w.Write([]byte("seen"))
	})
	for _, address := range os.Args[1:] {
		go func(address string) {
			fmt.Fprintln(os.Stderr, http.ListenAndServe(address, handler))
			os.Exit(1)
		}(address)
	}
	select {}
}
